"""What a page of results may do: read back as a browser reads it."""

import base64
import hashlib
from html.parser import HTMLParser

import pytest

from jawloc.reporting.content_policy import page_policy, plotly_policy


class Page(HTMLParser):
    """A page's policy, the texts of its styles and scripts, and the attributes of its elements."""

    def __init__(self, text):
        super().__init__()
        self.policy, self.inside, self.order = {}, None, []
        self.texts, self.attributes = {"style": [], "script": []}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.inside = tag
        self.order.append(tag)
        self.attributes += [name for name, _ in attrs]
        about = dict(attrs)
        if about.get("http-equiv") == "Content-Security-Policy":
            parts = (part.split() for part in about["content"].split(";"))
            self.policy = {name: sources for name, *sources in parts}

    def handle_data(self, data):
        if self.inside in self.texts:
            self.texts[self.inside].append(data)
            self.inside = None


def hashed(text):
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def test_a_page_of_pictures_runs_nothing():
    policy = page_policy("a { b: c }\r\n")
    assert policy == (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data:; style-src "
        + hashed("a { b: c }\n")
    )


def test_a_page_of_plotlys_figures_runs_only_the_scripts_that_it_came_with():
    one, other = "if (1 < 2) {}", "\nconst b = '</i>';\n"
    page = f"<div><script type='a'>{one}</script><SCRIPT>{other}</SCRIPT><script>{one}</script>"
    policy = plotly_policy(page)
    assert policy.endswith(f"script-src {hashed(one)} {hashed(other)} 'unsafe-eval'")
    assert policy.startswith("default-src 'none'; ")
    assert "'unsafe-inline'" not in policy.partition("script-src")[2]


def test_plotlys_own_pages_are_covered():
    import plotly.graph_objects as objects

    figure = objects.Figure(objects.Scatter(x=[1, 2], y=[3, 4], text="</script><script>x"))
    body = figure.to_html(full_html=False, include_plotlyjs=True)
    policy = f'<meta http-equiv="Content-Security-Policy" content="{plotly_policy(body)}">'
    page = Page(f"<!doctype html>{policy}{body}")
    assert len(page.texts["script"]) == 3
    assert set(map(hashed, page.texts["script"])) < set(page.policy["script-src"])


@pytest.mark.parametrize("text", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>'])
def test_names_and_values_in_a_report_are_text(text, tmp_path):
    """Regression: the page had no policy."""
    from PIL import Image

    from jawloc.inference.comparison import Decision
    from jawloc.reporting.evaluation_report import html_report
    from tests.inference.evaluated import evaluated
    from tests.reporting.test_evaluation_report import Failure, evaluation

    picture = tmp_path / "worst_01_x' onload='alert(1).png"
    Image.new("RGB", (4, 4)).save(picture)
    found = evaluated(text, (1, 0, 0), name=text, status="uncertain", reason=text)
    content = evaluation(
        model=text,
        digest=text,
        objects=(text,),
        evaluated=(found,),
        failed=(Failure(text, text, text),),
        run_id=text,
    )
    page = Page(html_report(content, {text: [picture]}, Decision(reason=text)))
    assert page.order.count("img") == 1
    assert "script" not in page.order
    assert not [name for name in page.attributes if name.startswith("on") or name == "style"]
    (style,) = page.texts["style"]
    assert page.policy["style-src"] == [hashed(style)]
    assert page.policy["default-src"] == ["'none'"]
    assert "script-src" not in page.policy
    assert page.order.index("meta") < page.order.index("style")
