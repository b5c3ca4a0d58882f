"""`--folds`: every scan tested once, from the command line to the store."""

import csv
import json
import shutil
from pathlib import Path
from unittest.mock import Mock

import mlflow
import numpy as np
import pytest
import torch
from mlflow import MlflowClient

import jawloc.workflows.cross_validate as cross_validation
import jawloc.workflows.log_training as log_training
import jawloc.workflows.train as experiment
from jawloc.config import change_config, load_config
from jawloc.errors import InputError
from jawloc.inference.locator import load_locator
from jawloc.reporting.tracking.store import tracking_uri
from jawloc.scans.manifest import MANIFEST
from jawloc.training.checkpoint import planned_epochs, save_folds_checkpoint
from jawloc.workflows.train_folds import CrossValidation
from tests.lab import SCAN_IDS, erase_labels, files_below, only_sentence, write_config

UNITS = ("downsampled_voxels", "full_size_voxels", "mm")
TESTED = [[SCAN_IDS[0], SCAN_IDS[2], SCAN_IDS[4]], [SCAN_IDS[1], SCAN_IDS[3]]]


def outputs(lab, name="locator"):
    return lab / "script_output" / "jaw_location" / name


def summary(folder):
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"))


def runs(lab):
    """Return a client of the lab's store and its runs by name; of one name, the latest."""
    client = MlflowClient(tracking_uri(lab))
    known = client.get_experiment_by_name("jaw_location").experiment_id
    return client, {run.info.run_name: run for run in reversed(client.search_runs([known]))}


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def done(make_lab, jawloc, tmp_path_factory):
    """A cross-validation of two folds: (the lab's folder, what the command line said)."""
    lab = make_lab(tmp_path_factory.mktemp("folds") / "lab", num_epochs=2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.chdir(lab)
        result = jawloc("train", "--folds", "2")
    torch.set_num_threads(threads)
    assert result.exit_code == 0, result.output
    return lab, result


@pytest.mark.slow
def test_every_fold_leaves_what_a_training_leaves_and_tests_its_own_scans(done):
    lab, _ = done
    folder = outputs(lab)
    files = {path.name for path in folder.iterdir()}
    assert {"fold_1", "fold_2", "locator.pth", "summary.json", "out_of_fold.csv"} <= files
    page = (folder / "labels.html").read_text(encoding="utf-8")
    assert all(page.count(f"<h2>{scan_id}</h2>") == 1 for tested in TESTED for scan_id in tested)
    assert {"config.yml", "test_centroid.png", "test_cropped.png", "test_heatmap.png"} <= files
    assert "checkpoint.pt" not in files
    for number, tested in enumerate(TESTED, start=1):
        fold = folder / f"fold_{number}"
        names = {path.name for path in fold.iterdir()}
        assert {f"fold_{number}.pth", "metrics.csv", "losses.png", "test_heatmap.png"} <= names
        assert "checkpoint.pt" not in names
        said = summary(fold)
        assert said["name"] == f"locator fold {number}"
        assert said["scans"]["test"] == tested
        every = [scan_id for ids in said["scans"].values() for scan_id in ids]
        assert sorted(every) == SCAN_IDS
        assert len(rows(fold / "metrics.csv")) == said["epochs"] == 2


@pytest.mark.slow
def test_the_summary_says_how_far_off_every_scan_is_by_the_fold_that_tested_it(done):
    lab, _ = done
    said = summary(outputs(lab))
    assert (said["name"], said["folds"], said["specimens"]) == ("locator", 2, 5)
    assert said["scans"] == {"fold_1": TESTED[0], "fold_2": TESTED[1]}
    found = said["out_of_fold_scans"]
    assert [row["scan"] for row in found] == SCAN_IDS
    assert [row["fold"] for row in found] == [1, 2, 1, 2, 1]
    assert [row["specimen"] for row in found] == SCAN_IDS
    own = {
        row["scan"]: row
        for n in (1, 2)
        for row in summary(outputs(lab) / f"fold_{n}")["test_scans"]
    }
    for row in found:
        assert row["predicted_voxels_zyx"] == pytest.approx(
            own[row["scan"]]["predicted_voxels_zyx"], abs=1e-3
        )
    for unit in UNITS:
        errors = [row[f"error_{unit}"] for row in found]
        for name, of in (("", np.mean), ("_median", np.median), ("_max", np.max)):
            assert said["out_of_fold_error"][f"{unit}{name}"] == pytest.approx(of(errors))
        assert said["mean_position_error"][unit] > 0
    assert [result["fold"] for result in said["fold_results"]] == [1, 2]
    assert said["seconds"] > 0


@pytest.mark.slow
def test_the_table_has_a_row_a_scan(done):
    lab, _ = done
    said = summary(outputs(lab))["out_of_fold_scans"]
    table = rows(outputs(lab) / "out_of_fold.csv")
    assert [(row["scan"], int(row["fold"])) for row in table] == [
        (r["scan"], r["fold"]) for r in said
    ]
    assert [float(row["error_mm"]) for row in table] == [row["error_mm"] for row in said]
    assert [float(row["predicted_z_voxels"]) for row in table] == [
        row["predicted_voxels_zyx"][0] for row in said
    ]


@pytest.mark.slow
def test_the_terminal_says_the_out_of_fold_error(done):
    lab, result = done
    said = summary(outputs(lab))
    assert "Mean radial error on all 5 scans of 5 specimens" in result.stdout
    assert f"  {said['out_of_fold_error']['mm']:.3f}  " in result.stdout
    assert str(outputs(lab).relative_to(lab)) in result.stdout


@pytest.mark.slow
def test_the_locator_has_the_networks_of_all_folds_and_fair_errors(done):
    lab, _ = done
    locator = load_locator(outputs(lab) / "locator.pth")
    folds = [load_locator(outputs(lab) / f"fold_{n}" / f"fold_{n}.pth") for n in (1, 2)]
    assert len(locator.networks) == 2
    for joined, fold in zip(locator.networks, folds, strict=True):
        pairs = zip(
            joined.state_dict().values(), fold.networks[0].state_dict().values(), strict=True
        )
        assert all(torch.equal(a, b) for a, b in pairs)
    assert locator.sigma_voxels == tuple(fold.sigma_voxels[0] for fold in folds)
    known = locator.calibration.objects["jaw"]
    assert (known.conformal, known.specimens) == (None, 5)  # one too few for a radius
    assert locator.calibration.scans.ranges["grey_median"].scans == 5
    record = locator.provenance
    assert record.ids("test") == tuple(SCAN_IDS)
    for network, fold in zip(record.networks, folds, strict=True):
        assert network == fold.provenance.networks[0]
    assert record.run_id == summary(outputs(lab))["run_id"] != folds[0].provenance.run_id
    # how much networks disagree is known from the scans that tested one and validated another
    twice = set(folds[0].provenance.ids("validation")) | set(folds[1].provenance.ids("validation"))
    assert known.ranges["disagreement"].scans == len(twice) == 2


@pytest.mark.slow
def test_the_report_says_of_each_scan_what_a_fold_says_that_learned_nothing_from_it(done):
    lab, result = done
    folder, said = outputs(lab), summary(outputs(lab))
    report = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    assert (report["scans"], report["seen_scans"]) == ({"evaluated": 5, "failed": 0}, {})
    errors = {row["scan"]: row["error_mm"] for row in report["rows"]}
    assert errors == {
        row["scan"]: pytest.approx(row["error_mm"], abs=1e-5) for row in said["out_of_fold_scans"]
    }
    # the radius would be that of the other fold's scans: of 2, or of 3, in the other's scans
    notes = {row["scan"]: row["radius_note"] for row in report["rows"]}
    assert all("tested on 2 specimens" in notes[i] for i in TESTED[0])
    assert all("tested on 3 specimens" in notes[i] for i in TESTED[1])
    assert (report["fair_scans"], report["objects_in_unseen_scans"]) == (5, {})
    whole = report["objects"]["jaw"]["crops"]["whole"]
    assert said["crops"]["jaw"]["whole"] == whole
    assert f"crops that hold all of it: {whole} of 5" in result.stdout
    assert "<img" in (folder / "evaluation.html").read_text(encoding="utf-8")
    client, known = runs(lab)
    assert known["locator"].data.metrics["evaluation_crops_whole"] == whole
    logged = {f.path for f in client.list_artifacts(known["locator"].info.run_id, "outputs")}
    assert "outputs/evaluation.html" in logged


@pytest.mark.slow
def test_the_runs_are_nested_and_the_parent_has_the_model(done):
    lab, _ = done
    client, found = runs(lab)
    assert set(found) == {"locator", "locator fold 1", "locator fold 2"}
    parent = found["locator"]
    assert parent.data.params["folds"] == "2"
    assert parent.data.params["curriculum.threshold"] == "100.0"
    said, metrics = summary(outputs(lab)), parent.data.metrics
    for key, value in said["out_of_fold_error"].items():
        assert metrics[f"out_of_fold/error_{key}"] == pytest.approx(value)
    folder = Path(mlflow.artifacts._download_artifact_from_uri(parent.info.artifact_uri))
    assert {"out_of_fold.csv", "summary.json", "locator.pth", "test_centroid.png"} <= {
        path.name for path in (folder / "outputs").iterdir()
    }
    assert json.loads((folder / "folds.json").read_text(encoding="utf-8")) == {
        "fold 1": TESTED[0],
        "fold 2": TESTED[1],
    }
    for number in (1, 2):
        run = found[f"locator fold {number}"]
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.metrics["test/error_mm"] > 0
        assert [m.step for m in client.get_metric_history(run.info.run_id, "val/kl")] == [1, 2]
        assert run.outputs.model_outputs
    (output,) = parent.outputs.model_outputs
    model = mlflow.pyfunc.load_model(client.get_logged_model(output.model_id).artifact_location)
    path = lab / "dicoms" / "labelled" / f"{SCAN_IDS[0]}.dcm"
    (expected,) = load_locator(outputs(lab) / "locator.pth").locate(path)
    position = model.predict([str(path)])[["z_voxels", "y_voxels", "x_voxels"]].to_numpy()[0]
    np.testing.assert_allclose(position, expected.point_voxels, atol=1e-3)


# --- specimens, objects, baselines ---------------------------------------------------------------


@pytest.fixture
def quick(lab, no_pictures):
    """A lab where a fold is one epoch and nothing is drawn."""
    write_config(lab, num_epochs=1)
    return lab


def rename(lab, names):
    for scan_id, name in zip(SCAN_IDS, names, strict=True):
        path = lab / "dicoms" / "labelled" / f"{scan_id}.dcm"
        path.rename(path.with_name(f"{name}.dcm"))


@pytest.mark.slow
def test_scans_of_one_specimen_are_never_in_two_parts_of_a_fold(quick, jawloc):
    rename(quick, ["fish1_left", "fish1_right", "fish2", "fish3_a", "fish3_b"])
    result = jawloc("train", "--folds", "3")
    assert result.exit_code == 0, result.output
    said = summary(outputs(quick))
    assert said["specimens"] == 3
    assert "5 scans of 3 specimens" in result.stdout
    for number in (1, 2, 3):
        scans = summary(outputs(quick) / f"fold_{number}")["scans"]
        specimens = [{i.split("_")[0] for i in ids} for ids in scans.values()]
        assert sum(map(len, specimens)) == 3
        assert set.union(*specimens) == {"fish1", "fish2", "fish3"}


@pytest.mark.slow
def test_of_several_objects_each_has_errors_where_scans_show_it(lab, jawloc, no_epoch_pictures):
    """With all pictures: one object is in no test scan of a fold, and in no validation scan."""
    write_config(lab, objects={"left": 1, "right": 2}, num_epochs=1)
    erase_labels(lab / "dicoms" / "labelled" / f"{SCAN_IDS[2]}.dcm", 2)
    result = jawloc("train", "--folds", "3")
    assert result.exit_code == 0, result.output
    said = summary(outputs(lab))
    assert {name: own["out_of_fold_scans"] for name, own in said["objects"].items()} == {
        "left": 5,
        "right": 4,
    }
    assert "right (4 scans) " in result.stdout
    _, found = runs(lab)
    assert found["locator"].data.metrics["out_of_fold/error_right_mm_max"] == pytest.approx(
        said["objects"]["right"]["out_of_fold_error"]["mm_max"]
    )


def test_an_object_that_a_fold_could_not_learn_is_refused(lab, jawloc):
    for number in (1, 3):
        erase_labels(lab / "dicoms" / "labelled" / f"{SCAN_IDS[number]}.dcm", 2)
    write_config(lab, objects={"left": 1, "right": 2})
    sentence = only_sentence(jawloc("train", "--folds", "2"))
    assert sentence == (
        "objects: each must be in at least one training scan of each fold; "
        "'right' is in no training scan"
    )


# --- runs that end early -------------------------------------------------------------------------


def interrupted_after(save, epochs):
    """Return what saves so many checkpoints and then interrupts."""
    saved = []

    def interrupting(path, *rest):
        save(path, *rest)
        saved.append(path)
        if len(saved) == epochs:
            raise KeyboardInterrupt

    return interrupting


@pytest.mark.slow
def test_going_on_repeats_the_uninterrupted_run_and_keeps_finished_folds(
    quick, jawloc, monkeypatch, one_thread
):
    words = ("train", "--folds", "2", "--set", "num_epochs=2", "--model-name")
    assert jawloc(*words, "whole").exit_code == 0
    for epochs in (2, 3):  # within the first fold, within the second
        with monkeypatch.context() as patch:
            _goes_on(quick, jawloc, patch, words, epochs)


def _goes_on(quick, jawloc, monkeypatch, words, epochs):
    parts = f"parts_{epochs}"
    save = experiment.save_checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "save_checkpoint", interrupted_after(save, epochs))
        result = jawloc(*words, parts)
    assert result.exit_code == 130
    assert "--resume goes on from its last checkpoint" in result.stderr
    _, found = runs(quick)
    assert found[parts].info.status == "KILLED"
    assert found[f"{parts} fold {epochs - 1}"].info.status == "KILLED"
    begun = []
    train = experiment.train

    def counted(state, *rest, **others):
        begun.append(len(state.records))
        return train(state, *rest, **others)

    monkeypatch.setattr(experiment, "train", counted)
    result = jawloc(*words, parts, "--resume")
    assert result.exit_code == 0, result.output
    assert begun == ([1] if epochs > 2 else [2, 0])
    said = [summary(outputs(quick, name)) for name in ("whole", parts)]
    assert said[0]["out_of_fold_scans"] == said[1]["out_of_fold_scans"]
    _, after = runs(quick)
    assert {run.info.status for run in after.values()} == {"FINISHED"}
    assert after[parts].info.run_id == found[parts].info.run_id


@pytest.mark.slow
def test_an_interruption_between_folds_loses_nothing(quick, jawloc, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(cross_validation, "evaluate_folds", interrupted)
        assert jawloc("train", "--folds", "2").exit_code == 130
    monkeypatch.setattr("jawloc.workflows.train_folds.train_fold", interrupted)
    assert jawloc("train", "--folds", "2", "--resume").exit_code == 0
    assert summary(outputs(quick))["folds"] == 2


def interrupted(*_):
    raise KeyboardInterrupt


def test_a_run_goes_on_only_as_it_began(quick, jawloc, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(cross_validation, "evaluate_folds", interrupted)
        assert jawloc("train", "--folds", "2").exit_code == 130
    before = files_below(outputs(quick))
    assert "--resume goes on" in only_sentence(jawloc("train", "--folds", "2"))
    for words, said in (
        (("--folds", "3"), "folds was 2 and is now 3"),
        (("--folds", "2", "--set", "seed=1"), "seed was 0 and is now 1"),
        (("--folds", "2", "--set", "specimen_pattern=(.+_)"), "--folds: there must be at least"),
        ((), "--resume: the interrupted run was begun with --folds, so go on with it"),
    ):
        assert said in only_sentence(jawloc("train", "--resume", *words))
    first = quick / "dicoms" / "labelled" / f"{SCAN_IDS[0]}.dcm"
    shutil.copy(first, first.with_name("zebra.dcm"))
    assert "scans new: zebra" in only_sentence(jawloc("train", "--resume", "--folds", "2"))
    assert files_below(outputs(quick)) == before


@pytest.mark.parametrize("finished", [0, 1, 2], ids=lambda number: f"fold {number} finished")
def test_epochs_may_be_added_as_long_as_no_fold_is_finished(quick, finished):
    """Regression: only the first fold was asked; on a cluster, another one may end before it."""
    folder, config = outputs(quick), load_config(quick / "userconf.yml")
    longer = change_config(config, {"num_epochs": 9}, source="test")
    for number in (1, 2):
        of_finished = (f"fold_{number}.pth", "summary.json")
        (folder / f"fold_{number}").mkdir(parents=True)
        for left in of_finished if number == finished else ("checkpoint.pt",):
            (folder / f"fold_{number}" / left).touch()
    save_folds_checkpoint(folder / "checkpoint.pt", config.as_params(), "run")
    folds = (Mock(), Mock())
    work = CrossValidation("locator", longer, folds, {}, folder, longer.as_params())
    if finished:
        with pytest.raises(InputError, match="as no fold is finished; it was 1 and is now 9"):
            cross_validation._extend(work, "run")
    else:
        cross_validation._extend(work, "run")
    assert planned_epochs(folder / "checkpoint.pt") == (1 if finished else 9)


def test_an_ordinary_run_is_not_gone_on_with_as_folds(quick, jawloc, monkeypatch):
    save = experiment.save_checkpoint
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "save_checkpoint", interrupted_after(save, 1))
        assert jawloc("train").exit_code == 130
    assert only_sentence(jawloc("train", "--folds", "2", "--resume")) == (
        "--resume: the interrupted run was begun without --folds, so go on without it"
    )


@pytest.mark.slow
def test_an_interruption_before_the_first_epoch_brings_an_overwritten_model_back(
    quick, jawloc, monkeypatch
):
    assert jawloc("train", "--folds", "2").exit_code == 0
    (outputs(quick) / "fold_1" / "notes.txt").write_text("mine")
    before = files_below(outputs(quick))
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "save_checkpoint", interrupted)
        result = jawloc("train", "--folds", "2", "--overwrite")
    assert "nothing is kept of this run" in result.stderr
    assert files_below(outputs(quick)) == before
    assert jawloc("train", "--overwrite").exit_code == 0
    assert files_below(outputs(quick)).keys() & {"fold_1/notes.txt", "fold_1/fold_1.pth"} == {
        "fold_1/notes.txt"
    }
    assert not (outputs(quick) / "fold_2").exists()


@pytest.mark.slow
def test_a_single_training_in_the_place_of_folds_leaves_and_logs_nothing_of_theirs(
    lab, jawloc, monkeypatch, no_epoch_pictures
):
    """Regression: the folds' evaluation stayed, and was logged as the new run's."""
    monkeypatch.setattr(cross_validation, "write_worst_pictures", lambda *_: None)
    monkeypatch.setattr(log_training, "write_pictures", lambda *_, **__: None)
    write_config(lab, num_epochs=1)
    assert jawloc("train", "--folds", "2").exit_code == 0
    folder = outputs(lab)
    theirs = {path.name for path in folder.iterdir()}
    assert {"evaluation.json", "success.png", "trust.png", "bias.png"} <= theirs
    assert sum(name.startswith("worst_") for name in theirs) == 5
    (folder / "bias_notes.png").write_text("mine")
    assert jawloc("train", "--overwrite").exit_code == 0
    own = {"locator.pth", "config.yml", "summary.json", "metrics.csv", "labels.html"}
    own |= {
        "train_heatmap_example.png",
        "val_heatmap_example.png",
        "heatmap_epoch_1_sigma_4.00.png",
    }
    assert {path.name for path in folder.iterdir()} == {*own, "bias_notes.png", MANIFEST}
    client, found = runs(lab)
    logged = client.list_artifacts(found["locator"].info.run_id, "outputs")
    assert {file.path for file in logged} == {f"outputs/{name}" for name in own}


def test_a_users_file_that_the_report_would_overwrite_is_refused_before_slow_work(
    quick, jawloc, monkeypatch
):
    assert jawloc("train").exit_code == 0

    def too_late(*_, **__):
        raise AssertionError("slow work began")

    monkeypatch.setattr("jawloc.workflows.prepare_data.build_cache", too_late)
    for name in ("bias.png", f"worst_02_{SCAN_IDS[1]}.png", "fold_2"):
        (outputs(quick) / name).write_text("mine")
        before = files_below(quick)
        said = only_sentence(jawloc("train", "--folds", "2", "--overwrite"))
        assert f"locator holds {name}, which jawloc didn't write" in said
        assert files_below(quick) == before
        (outputs(quick) / name).unlink()


# --- what can't be -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folds", "said"),
    [
        ("1", "--folds: at least 2"),
        ("0", "--folds: at least 2"),
        ("-3", "--folds: at least 2"),
        ("6", "--folds: there must be at least as many specimens as folds"),
    ],
)
def test_a_bad_number_of_folds_is_refused_before_slow_work(lab, jawloc, monkeypatch, folds, said):
    def too_late(*_, **__):
        raise AssertionError("slow work began")

    monkeypatch.setattr("jawloc.workflows.prepare_data.build_cache", too_late)
    before = files_below(lab)
    sentence = only_sentence(jawloc("train", "--folds", folds))
    assert sentence.startswith(said)
    assert f"received {folds}" in sentence
    assert files_below(lab) == before


def test_folds_are_not_for_torchrun(lab, jawloc, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "not by torchrun" in only_sentence(jawloc("train", "--folds", "2"))


@pytest.mark.slow
def test_the_demo_can_be_cross_validated(quick, jawloc, monkeypatch):
    from jawloc.workflows import demo
    from tests.lab import SCAN_SHAPE, TINY_SETTINGS

    small = {k: v for k, v in TINY_SETTINGS.items() if k != "dicom_dirs"} | {"num_epochs": 1}
    monkeypatch.setattr(demo, "DEMO_SETTINGS", small)
    monkeypatch.setattr(demo, "DEMO_SHAPE", SCAN_SHAPE)
    monkeypatch.setattr(demo, "DEMO_SCANS", 4)
    sentence = only_sentence(jawloc("train", "--demo", "--folds", "5"))
    assert "received 5 for 4 specimens" in sentence
    assert not (quick / "dicoms" / "demo").exists()
    result = jawloc("train", "--demo", "--folds", "2")
    assert result.exit_code == 0, result.output
    # of phantoms that are the same every time, and no network
    said = summary(outputs(quick, "demo"))["brightest_spot_error"]["downsampled_voxels"]
    assert said == pytest.approx(3.738, abs=0.01)
