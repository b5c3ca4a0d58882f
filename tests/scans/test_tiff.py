"""TIFFs as microscopes, ImageJ and scanners write them: order, axes, black, voxel sizes."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from jawloc.errors import InputError
from jawloc.scans.convert import convert, plan_conversion
from jawloc.scans.listing import list_scans
from jawloc.scans.reading import open_scan, read_scan

SHAPE = (6, 5, 4)
IMAGE = np.random.default_rng(0).integers(1, 200, SHAPE).astype(np.uint16)
MASK = np.zeros((10, 12, 14), np.uint8)
MASK[3:5, 4:8, 5:8] = 1  # 24 voxels of 1680


def quietly(path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return open_scan(path)


# --- order of slices ----------------------------------------------------------------------------


def write_ome(path: Path, image: np.ndarray, slice_of_page: list[int], more: str = "", **options):
    """Write pages so that `TiffData` of the XML says which slice each page is."""
    data = "".join(
        f'<TiffData IFD="{page}" FirstZ="{z}" PlaneCount="1"/>'
        for page, z in enumerate(slice_of_page)
    )
    depth, rows, columns = image.shape
    xml = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="{image.dtype}" '
        f'SizeX="{columns}" SizeY="{rows}" SizeZ="{depth}" SizeC="1" SizeT="1" {more}>'
        f'<Channel ID="Channel:0:0" SamplesPerPixel="1"/>{data}</Pixels></Image></OME>'
    )
    with tifffile.TiffWriter(path) as writer:
        for page, z in enumerate(slice_of_page):
            writer.write(
                image[z],
                photometric="minisblack",
                description=xml if page == 0 else None,
                metadata=None,
                contiguous=False,
                **options,
            )


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}], ids=["raw", "compressed"])
@pytest.mark.parametrize("order", [[5, 4, 3, 2, 1, 0], [2, 0, 1, 5, 3, 4]])
def test_slices_of_an_ome_tiff_are_in_the_order_of_its_xml(tmp_path, order, options):
    """Regression: they were in the order of the file's pages."""
    write_ome(tmp_path / "a.ome.tif", IMAGE, order, **options)
    scan = open_scan(tmp_path / "a.ome.tif")
    np.testing.assert_array_equal(scan.read_image(0, 6), IMAGE)
    np.testing.assert_array_equal(scan.read_image(2, 4), IMAGE[2:4])


def test_an_ome_tiff_that_lacks_a_slice_is_refused(tmp_path):
    """tifffile would fill it with zeros."""
    write_ome(tmp_path / "a.ome.tif", IMAGE, [0, 1, 3, 4, 5])
    with pytest.raises(InputError, match=r"^a\.ome\.tif: .*"):
        open_scan(tmp_path / "a.ome.tif")


@pytest.mark.parametrize("axes", ["XYZ", "YXZ", "ZXY", "XZY", "ZYX"])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}], ids=["raw", "compressed"])
def test_axes_are_turned_to_z_y_x(tmp_path, axes, options):
    """Regression: XYZ was taken as ZYX."""
    turned = IMAGE.transpose(["ZYX".index(axis) for axis in axes])
    tifffile.imwrite(
        tmp_path / "a.tif", turned, photometric="minisblack", metadata={"axes": axes}, **options
    )
    scan = open_scan(tmp_path / "a.tif")
    assert scan.grid.shape_zyx == SHAPE
    np.testing.assert_array_equal(scan.read_image(0, 6), IMAGE)
    np.testing.assert_array_equal(scan.read_image(3, 5), IMAGE[3:5])


def test_channels_and_times_are_refused_with_the_axes(tmp_path):
    image = np.zeros((2, 3, 5, 4), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image, imagej=True, metadata={"axes": "ZCYX"})
    with pytest.raises(InputError, match=r"one volume .*\(2, 3, 5, 4\) \(axes ZCYX\)"):
        open_scan(tmp_path / "a.tif")


@pytest.mark.parametrize("how", [{"imagej": True}, {"photometric": "minisblack"}])
def test_a_slice_of_two_channels_is_no_volume(tmp_path, how):
    """Regression: the channels were read as slices."""
    tifffile.imwrite(tmp_path / "a.tif", IMAGE[:2], metadata={"axes": "CYX"}, **how)
    with pytest.raises(InputError, match=r"^a\.tif: .*one volume .*\(2, 5, 4\) \(axes CYX\)"):
        open_scan(tmp_path / "a.tif")


def test_more_channels_than_there_are_are_slices(tmp_path):
    """tifffile writes a volume so for ImageJ, unless its axes are named."""
    image = np.concatenate([IMAGE, IMAGE])
    tifffile.imwrite(tmp_path / "a.tif", image, imagej=True)
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        assert file.series[0].axes == "CYX"
    np.testing.assert_array_equal(quietly(tmp_path / "a.tif").read_image(0, 12), image)


# --- black and white ----------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}], ids=["raw", "compressed"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_where_0_is_white_bright_voxels_have_high_grey_values(tmp_path, dtype, options):
    """Regression: the image was read as its negative."""
    stored = (np.iinfo(dtype).max - IMAGE).astype(dtype)
    if dtype == "int16":
        stored = (-1 - IMAGE.astype(int)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="miniswhite", **options)
    with pytest.warns(UserWarning, match=r"^a\.tif: 0 is white"):
        scan = open_scan(tmp_path / "a.tif")
    assert scan.dtype == dtype
    np.testing.assert_array_equal(scan.read_image(0, 6), IMAGE)
    np.testing.assert_array_equal(scan.read_image(1, 2), IMAGE[1:2])


@pytest.mark.parametrize("kind", ["bool", "uint8", "slices"])
def test_a_mask_where_0_is_white_keeps_its_voxels(tmp_path, kind):
    """Regression: 24 voxels of 1680 became 1656."""
    stored = MASK == 0 if kind == "bool" else (255 - MASK * 255).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", np.ones(MASK.shape, np.uint8) * 7)
    if kind == "slices":
        (tmp_path / "a_mask").mkdir()
        for number, plane in enumerate(stored):
            tifffile.imwrite(tmp_path / f"a_mask/{number}.tif", plane, photometric="miniswhite")
    else:
        tifffile.imwrite(tmp_path / "a_mask.tif", stored, photometric="miniswhite")
    with pytest.warns(UserWarning, match="0 is white"):
        (item,) = plan_conversion(tmp_path, tmp_path, tmp_path / "out")
        done = convert(item)
    assert done.skip_reason is None
    mask = read_scan(done.target).mask
    assert np.count_nonzero(mask) == 24
    np.testing.assert_array_equal(mask[: len(MASK)] > 0, MASK > 0)


def test_imagejs_inverted_palette_changes_no_value(tmp_path):
    """ImageJ keeps the values of masks and shows them inverted."""
    image = (MASK * 255).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image, imagej=True, photometric="miniswhite")
    np.testing.assert_array_equal(quietly(tmp_path / "a.tif").read_image(0, 10), image)


# --- compressions -------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["lzw", "zstd", "jpeg2000", "packbits", "lzma", "zlib"])
def test_lossless_compressions_are_read(tmp_path, compression):
    """Regression: LZW, zstd and JPEG 2000 were refused."""
    image = np.random.default_rng(0).integers(0, 250, (4, 32, 48)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack", compression=compression)
    np.testing.assert_array_equal(read_scan(tmp_path / "a.tif").image, image)


def test_jpeg_is_read(tmp_path):
    image = np.indices((4, 32, 48)).sum(axis=0).astype(np.uint8) * 2
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack", compression="jpeg")
    np.testing.assert_allclose(read_scan(tmp_path / "a.tif").image, image, atol=6)


def test_fax_compression_of_a_mask_is_read(tmp_path):
    """Pillow writes CCITT group 4, where 0 is white, from pictures in which white is 1."""
    mask = np.zeros((3, 20, 30), bool)
    mask[1, 4:9, 10:14] = True
    pages = [Image.fromarray(plane) for plane in mask]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], compression="group4")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        np.testing.assert_array_equal(read_scan(tmp_path / "a.tif").image > 0, mask)


# --- voxel sizes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "mm"),
    [("micron", 1e-3), ("um", 1e-3), ("\\u00B5m", 1e-3), ("mm", 1), ("cm", 10)],
)
def test_imagejs_voxel_size_is_used(tmp_path, unit, mm):
    """Regression: it was dropped. Resolutions are pixels a unit."""
    tifffile.imwrite(
        tmp_path / "a.tif",
        IMAGE,
        imagej=True,
        resolution=(1 / 20, 1 / 30),
        metadata={"axes": "ZYX", "unit": unit, "spacing": 40},
    )
    spacing = quietly(tmp_path / "a.tif").grid.spacing_mm_zyx
    np.testing.assert_allclose(spacing, (40 * mm, 30 * mm, 20 * mm), rtol=1e-6)


@pytest.mark.parametrize(
    ("resolution", "metadata", "spacing"),
    [
        ((1, 1), {"unit": "micron"}, (0.001, 0.001, 0.001)),  # ImageJ leaves out a spacing of 1
        ((50, 50), {"unit": "mm"}, None),  # a writer that gave none
        ((50, 50), {"unit": "pixel", "spacing": 2}, None),
        ((50, 50), {"spacing": 2}, None),
        ((50, 50), {"unit": "mm", "spacing": -0.02}, (0.02, 0.02, 0.02)),  # a reversed stack
    ],
)
def test_an_imagej_voxel_size_that_is_not_stated_is_unknown(
    tmp_path, resolution, metadata, spacing
):
    metadata = {"axes": "ZYX"} | metadata
    tifffile.imwrite(
        tmp_path / "a.tif", IMAGE, imagej=True, metadata=metadata, resolution=resolution
    )
    got = quietly(tmp_path / "a.tif").grid.spacing_mm_zyx
    assert got == (None if spacing is None else pytest.approx(spacing))


def test_an_imagej_voxel_size_without_a_height_is_unknown(tmp_path):
    """Regression: voxels were 1 mm high."""
    path, how = tmp_path / "a.tif", {"axes": "ZYX", "unit": "mm", "spacing": 0.04}
    tifffile.imwrite(path, IMAGE, imagej=True, metadata=how, resolution=(50, 50))
    with tifffile.TiffFile(path) as file:
        height = file.pages[0].tags["YResolution"].offset
    content = bytearray(path.read_bytes())
    content[height : height + 2] = content[height : height + 2].replace(b"\x1b\x01", b"\x2c\x01")
    assert bytes(content) != path.read_bytes()
    path.write_bytes(content)
    assert quietly(path).grid.spacing_mm_zyx is None


@pytest.mark.parametrize(
    ("metadata", "spacing"),
    [
        ({"zunit": "um", "spacing": 21}, (0.021, 0.02, 0.02)),
        ({"yunit": "cm", "zunit": "\\u00B5m", "spacing": 21}, (0.021, 0.2, 0.02)),
        ({"zunit": "pixel", "spacing": 1}, None),
    ],
)
def test_imagejs_axes_may_have_units_of_their_own(tmp_path, metadata, spacing):
    """Regression: the unit of x was that of all."""
    how = {"axes": "ZYX", "unit": "mm"} | metadata
    tifffile.imwrite(tmp_path / "a.tif", IMAGE, imagej=True, metadata=how, resolution=(50, 50))
    got = quietly(tmp_path / "a.tif").grid.spacing_mm_zyx
    assert got == (None if spacing is None else pytest.approx(spacing))


def test_imagejs_unit_inch_is_no_voxel_size(tmp_path):
    """Regression: ImageJ makes 1/96 inch along all axes of a TIFF with 96 pixels an inch."""
    how = {"axes": "ZYX", "unit": "inch", "spacing": 1 / 96}
    tifffile.imwrite(tmp_path / "a.tif", IMAGE, imagej=True, metadata=how, resolution=(96, 96))
    with pytest.warns(UserWarning, match=r"^a\.tif: the voxel size counts as unknown, .*inch"):
        assert open_scan(tmp_path / "a.tif").grid.spacing_mm_zyx is None


@pytest.mark.parametrize(
    ("sizes", "spacing"),
    [
        ({"X": "20", "Y": "30", "Z": "40"}, (0.04, 0.03, 0.02)),  # µm is OME's default
        (
            {"X": "20", "XUnit": "nm", "Y": "3", "YUnit": "mm", "Z": "4", "ZUnit": "cm"},
            (40, 3, 2e-5),
        ),
        ({"X": "20", "Y": "20"}, None),
        ({"X": "1", "XUnit": "pixel", "Y": "1", "Z": "1"}, None),
        ({}, None),
    ],
)
def test_omes_physical_size_is_used_with_its_unit(tmp_path, sizes, spacing):
    more = " ".join(f'PhysicalSize{name}="{value}"' for name, value in sizes.items())
    write_ome(tmp_path / "a.ome.tif", IMAGE, [0, 1, 2, 3, 4, 5], more)
    got = quietly(tmp_path / "a.ome.tif").grid.spacing_mm_zyx
    assert got == (None if spacing is None else pytest.approx(spacing))


def test_a_voxel_size_of_0_is_refused(tmp_path):
    more = 'PhysicalSizeX="0" PhysicalSizeY="1" PhysicalSizeZ="1"'
    write_ome(tmp_path / "a.ome.tif", IMAGE, [0, 1, 2, 3, 4, 5], more)
    with pytest.raises(InputError, match=r"^a\.ome\.tif: the voxel size .*positive and finite"):
        open_scan(tmp_path / "a.ome.tif")


def test_pixels_per_inch_are_no_voxel_size(tmp_path):
    """Most programs make up 72 an inch."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, IMAGE, photometric="minisblack", resolution=(72, 72), resolutionunit="inch"
    )
    assert quietly(tmp_path / "a.tif").grid.spacing_mm_zyx is None


@pytest.mark.parametrize("resolution", [(0, 1), (5, 0), (2**32 - 1, 1)])
def test_a_resolution_that_is_none_does_not_matter(tmp_path, resolution):
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, IMAGE, photometric="minisblack", resolution=(72, 72), resolutionunit="inch"
    )
    with tifffile.TiffFile(path) as file:
        at = file.pages[0].tags["YResolution"].valueoffset
    content = bytearray(path.read_bytes())
    content[at : at + 8] = np.array(resolution, "<u4").tobytes()
    path.write_bytes(content)
    scan = quietly(path)
    assert scan.grid.spacing_mm_zyx is None
    np.testing.assert_array_equal(scan.read_image(0, 6), IMAGE)


# --- SkyScan's folders --------------------------------------------------------------------------


def write_skyscan(
    folder: Path, ending: str, log: str = "Image Pixel Size (um)=20.50\n", step: int = 1
) -> Path:
    folder.mkdir()
    image = (IMAGE % 256).astype(np.uint8)
    for number, plane in enumerate(image):
        name = folder / f"fish_rec{step * number + 8:08d}{ending}"
        if ending == ".tif":
            tifffile.imwrite(name, plane, photometric="minisblack")
        else:
            Image.fromarray(plane).save(name)
    Image.fromarray(image[0, :3]).save(folder / f"fish_rec_spr{ending}")  # a projection
    (folder / "fish_rec.log").write_text(f"[System]\nScanner=Skyscan1272\n[Acquisition]\n{log}")
    return folder


@pytest.mark.parametrize("ending", [".tif", ".bmp", ".png"])
def test_a_skyscan_folder_is_read_with_its_size(tmp_path, ending):
    folder = write_skyscan(tmp_path / "fish", ending)
    scan = quietly(folder)
    assert scan.grid.spacing_mm_zyx == pytest.approx((0.0205, 0.0205, 0.0205))
    np.testing.assert_array_equal(scan.read_image(0, 6), IMAGE % 256)
    assert [one.path for one in list_scans([tmp_path])] == [folder]


def test_the_size_of_skyscans_slices_is_their_own(tmp_path):
    """Regression: that of the projections, which may be binned for the reconstruction, counted."""
    log = "Image Pixel Size (um)=5.1\n[Reconstruction]\nPixel Size (um)= 20.50000\n"
    folder = write_skyscan(tmp_path / "fish", ".tif", log)
    assert quietly(folder).grid.spacing_mm_zyx == pytest.approx((0.0205, 0.0205, 0.0205))


def test_skyscans_slices_of_every_third_section_are_so_far_apart(tmp_path):
    """Regression: their voxels were taken to be as high as they are wide."""
    folder = write_skyscan(tmp_path / "fish", ".tif", step=3)
    with pytest.warns(UserWarning, match=r"^fish: .* rise by 3: .* 3 pixels apart, 0\.0615 mm"):
        scan = open_scan(folder)
    assert scan.grid.spacing_mm_zyx == pytest.approx((0.0615, 0.0205, 0.0205))


def test_a_size_that_the_slices_contradict_is_named(tmp_path):
    folder = write_skyscan(tmp_path / "fish", ".tif")
    for number, plane in enumerate(IMAGE):
        tifffile.imwrite(
            folder / f"fish_rec{number + 8:08d}.tif",
            plane,
            imagej=True,
            resolution=(100, 100),
            metadata={"unit": "mm"},
        )
    with pytest.warns(UserWarning, match=r"^fish: .* 0\.0205 mm by fish_rec\.log; .* 0\.01 mm"):
        assert open_scan(folder).grid.spacing_mm_zyx == pytest.approx([0.0205] * 3)


def test_two_logs_that_disagree_are_named(tmp_path):
    folder = write_skyscan(tmp_path / "fish", ".bmp")
    (folder / "later.log").write_text("Image Pixel Size (um)= 18\n")
    with pytest.warns(UserWarning, match=r"0\.0205 mm by fish_rec\.log; later\.log says 0\.018 mm"):
        open_scan(folder)


@pytest.mark.parametrize(("log", "rule"), [("abc", "must be a number"), ("0", "positive")])
def test_a_log_with_a_size_that_is_none_is_refused(tmp_path, log, rule):
    folder = write_skyscan(tmp_path / "fish", ".bmp", f"Image Pixel Size (um)={log}\n")
    with pytest.raises(InputError, match=rule):
        open_scan(folder)


def test_a_log_that_says_nothing_of_it_leaves_the_size_unknown(tmp_path):
    folder = write_skyscan(tmp_path / "fish", ".bmp", "Object to Source (mm)=100\n")
    assert quietly(folder).grid.spacing_mm_zyx is None


def test_a_given_spacing_overrules_the_files_and_both_are_named(tmp_path):
    for name, voxels in (("a.tif", IMAGE), ("a_mask.tif", np.median(IMAGE) < IMAGE)):
        tifffile.imwrite(
            tmp_path / name,
            voxels.astype(np.uint8),
            imagej=True,
            resolution=(50, 50),
            metadata={"axes": "ZYX", "unit": "mm", "spacing": 0.02},
        )
    (item,) = plan_conversion(tmp_path, tmp_path, tmp_path / "out")
    done = convert(item, spacing_mm_zyx=(0.03, 0.03, 0.03))
    assert any("(0.03, 0.03, 0.03) mm replaces" in note and "0.02" in note for note in done.notes)
    assert read_scan(done.target).grid.spacing_mm_zyx == pytest.approx((0.03, 0.03, 0.03))


def test_a_colour_bmp_is_refused(tmp_path):
    folder = tmp_path / "fish"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (4, 5)).save(folder / f"{number}.bmp")
    with pytest.raises(InputError, match=r"^0\.bmp: pixels must be one grey value each; .* RGB"):
        open_scan(folder)


# --- what can't be -------------------------------------------------------------------------------


def test_a_header_that_promises_more_than_the_file_can_hold_is_refused_at_once(tmp_path):
    """Regression for memory: 65,535 by 65,535 pixels would be 4 GB a page."""
    tifffile.imwrite(tmp_path / "a.tif", IMAGE, photometric="minisblack", compression="zlib")
    content = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        for page in tiff.pages:
            for name in ("ImageWidth", "ImageLength", "RowsPerStrip"):
                at = page.tags[name].offset
                content[at + 2 : at + 4] = b"\x03\x00"
                content[at + 8 : at + 12] = b"\xff\xff\x00\x00"
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(InputError, match=r"^a\.tif: .*65535"):
        open_scan(tmp_path / "a.tif")
