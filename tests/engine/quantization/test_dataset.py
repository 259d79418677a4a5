"""A dataset file becomes samples ready for the model; whatever is wrong with it is told with its line."""

from __future__ import annotations

import io
import logging
import os
import struct
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from engine.errors import DatasetError
from engine.quantization import dataset as dataset_module
from engine.quantization.dataset import Dataset, read_sample, split_columns
from engine.quantization.preprocessing import InputSpec, note

RGB = InputSpec("x", (1, 3, 4, 6), layout="nchw")
VECTOR = InputSpec("v", (1, 5))


@pytest.fixture(autouse=True)
def fresh_notes() -> None:
    note.cache_clear()


def pixels(height: int = 4, width: int = 6, channels: int = 3) -> Any:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def save_image(path: Path, array: Any = None) -> Any:
    array = pixels() if array is None else array
    Image.fromarray(array).save(path)
    return array


def listing(folder: Path, *lines: str) -> Path:
    path = folder / "dataset.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def refusal(path: Path, specs: Sequence[InputSpec]) -> DatasetError:
    """The error of reading the whole dataset."""
    with pytest.raises(DatasetError) as caught:
        list(Dataset(path, specs))
    return caught.value


def own(array: Any) -> Any:
    """An NHWC sample without batch, as RGB's own layout has it."""
    return array.transpose(2, 0, 1)[np.newaxis].astype(np.float32)


class TestListFile:
    def test_samples_come_in_order_as_often_as_wanted(self, tmp_path: Path) -> None:
        first, second = np.zeros((4, 6, 3), np.uint8), np.full((4, 6, 3), 9, np.uint8)
        save_image(tmp_path / "a.png", first)
        save_image(tmp_path / "b.bmp", second)
        data = Dataset(listing(tmp_path, "a.png", "b.bmp", "a.png"), [RGB])
        assert len(data) == 3
        for _ in range(2):
            assert [sample["x"].flat[0] for sample in data] == [0, 9, 0]

    def test_bom_windows_line_ends_comments_and_blank_lines(self, tmp_path: Path) -> None:
        save_image(tmp_path / "图 片.png")
        path = tmp_path / "dataset.txt"
        path.write_bytes("\ufeff# calibration\r\n\r\n  图 片.png\t\r\n \t\r\n".encode())
        assert len(Dataset(path, [RGB])) == 1

    def test_paths_are_relative_to_the_file_or_absolute(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "lists").mkdir()
        (tmp_path / "images").mkdir()
        image = tmp_path / "images" / "a.png"
        save_image(image)
        monkeypatch.chdir(tmp_path / "images")
        path = listing(tmp_path / "lists", "../images/a.png", str(image))
        assert len(list(Dataset(path, [RGB]))) == 2

    def test_one_column_for_each_input_and_quotes_for_spaces(self, tmp_path: Path) -> None:
        shown = save_image(tmp_path / "my photo.png")
        np.save(tmp_path / "it's.npy", np.arange(5.0).reshape(1, 5))
        data = Dataset(listing(tmp_path, '"my photo.png"  it\'s.npy'), [RGB, VECTOR])
        assert data.files(0) == (tmp_path / "my photo.png", tmp_path / "it's.npy")
        (sample,) = data
        assert list(sample) == ["x", "v"]
        assert np.array_equal(sample["x"], own(shown))
        assert sample["v"].tolist() == [[0, 1, 2, 3, 4]]

    def test_a_wrong_number_of_columns_says_how_many(self, tmp_path: Path) -> None:
        save_image(tmp_path / "a.png")
        error = refusal(listing(tmp_path, "# two inputs", "a.png"), [RGB, VECTOR])
        assert error.what == "expected 2 paths, got 1"
        assert error.where == f"{tmp_path / 'dataset.txt'} line 2"

    def test_several_problems_come_in_one_message_with_their_lines(self, tmp_path: Path) -> None:
        save_image(tmp_path / "a.png")
        lines = ["a.png", "gone.png", "a.gif", "a.png a.png", '"a.png', *[f"gone{i}.png" for i in range(4)]]
        message = str(refusal(listing(tmp_path, *lines), [RGB]))
        for part in (
            "line 2: gone.png does not exist",
            "line 3: 'a.gif' has an unknown extension '.gif'",
            "line 4: expected 1 path, got 2",
            "line 5: the quote at column 1 is not closed",
            "line 6: gone0.png does not exist",
            "and 3 more lines",
        ):
            assert part in message
        assert "gone1.png" not in message

    def test_a_path_relative_to_the_working_folder_gets_a_hint(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "lists").mkdir()
        save_image(tmp_path / "a.png")
        monkeypatch.chdir(tmp_path)
        error = refusal(listing(tmp_path / "lists", "a.png"), [RGB])
        assert error.where.endswith("dataset.txt line 1")
        assert "relative to the dataset file's folder" in error.hint

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "lists no samples"),
            (b"# nothing\n\n", "lists no samples"),
            (b"\x89PNG\r\n\x1a\n\0\0", "is not a text file"),
            ("标定.png".encode("gbk"), "is not UTF-8 text"),
        ],
    )
    def test_a_file_that_is_no_list_is_refused(self, tmp_path: Path, content: bytes, message: str) -> None:
        path = tmp_path / "dataset.txt"
        path.write_bytes(content)
        assert message in str(refusal(path, [RGB]))

    def test_a_missing_file_a_folder_and_a_huge_file_are_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert "does not exist" in str(refusal(tmp_path / "no.txt", [RGB]))
        assert "is a folder" in str(refusal(tmp_path, [RGB]))
        huge = tmp_path / "huge.txt"
        with huge.open("wb") as file:
            file.truncate(dataset_module.MAX_DATASET_BYTES + 1)
        assert "is larger than 64 MB" in str(refusal(huge, [RGB]))

    def test_a_line_too_long_for_a_path_is_a_missing_file(self, tmp_path: Path) -> None:
        assert "does not exist" in str(refusal(listing(tmp_path, "a" * 5000 + ".png"), [RGB]))


names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), min_size=1, max_size=12).filter(
    lambda name: not ('"' in name and "'" in name)
)


def quoted(name: str) -> str:
    mark = "'" if '"' in name else '"'
    return f"{mark}{name}{mark}" if " " in name or "\t" in name or name[0] in "\"'" else name


class TestSplitColumns:
    @settings(deadline=None)
    @given(st.lists(names, min_size=1, max_size=4), st.sampled_from([" ", "\t", "   "]))
    @example(["C:\\data\\a.jpg", "a b\\"], " ")
    def test_paths_written_down_come_back(self, paths: list[str], gap: str) -> None:
        # A quote inside a path that needs quotes of that kind cannot be written: `quoted` takes the other kind.
        assert split_columns(gap.join(quoted(path) for path in paths)) == tuple(paths)

    @settings(deadline=None)
    @given(st.text(max_size=40))
    def test_any_line_gives_paths_or_a_dataset_error(self, line: str) -> None:
        try:
            columns = split_columns(line)
        except DatasetError:
            return
        assert all(columns)

    @pytest.mark.parametrize("line", ['"a.png', "a.png 'b c.png", '"a"b.png', "''"])
    def test_bad_quotes_are_refused(self, line: str) -> None:
        with pytest.raises(DatasetError, match="at column"):
            split_columns(line)


class TestImages:
    def test_an_image_is_rgb_in_the_models_layout_with_mean_and_std(self, tmp_path: Path) -> None:
        array = save_image(tmp_path / "a.png")
        expected = ((array.astype(np.float64) - [1, 2, 3]) / [4, 5, 6]).astype(np.float32)
        scaling: dict[str, Any] = {"mean": (1, 2, 3), "std": (4, 5, 6)}
        nchw = read_sample([tmp_path / "a.png"], [InputSpec("x", (1, 3, 4, 6), layout="nchw", **scaling)])["x"]
        nhwc = read_sample([str(tmp_path / "a.png")], [InputSpec("x", (1, 4, 6, 3), layout="nhwc", **scaling)])["x"]
        assert np.allclose(nchw, expected.transpose(2, 0, 1)[np.newaxis])
        assert np.allclose(nhwc, expected[np.newaxis])

    def test_rgb2bgr_swaps_images_before_mean_and_never_npy(self, tmp_path: Path) -> None:
        array = save_image(tmp_path / "a.png")
        np.save(tmp_path / "a.npy", array[np.newaxis])
        spec = InputSpec("x", (1, 3, 4, 6), layout="nchw", mean=(100, 0, 0), rgb2bgr=True)
        image, file = (read_sample([tmp_path / name], [spec])["x"] for name in ("a.png", "a.npy"))
        assert np.array_equal(image[0, 0], array[..., 2] - 100.0)
        assert np.array_equal(file[0, 0], array[..., 0] - 100.0)

    def test_images_are_resized_to_the_input(self, tmp_path: Path) -> None:
        halves = np.zeros((40, 60, 3), np.uint8)
        halves[:, 30:] = 200
        save_image(tmp_path / "a.png", halves)
        values = read_sample([tmp_path / "a.png"], [RGB])["x"]
        assert values.shape == (1, 3, 4, 6)
        assert (values[..., 0] == 0).all()
        assert (values[..., -1] == 200).all()

    def test_shrinking_averages_instead_of_picking_pixels(self, tmp_path: Path) -> None:
        stripes = np.zeros((40, 60, 3), np.uint8)
        stripes[:, ::2] = 200
        save_image(tmp_path / "a.png", stripes)
        values = read_sample([tmp_path / "a.png"], [RGB])["x"]
        assert np.allclose(values, 100, atol=5)

    def test_grey_palette_and_alpha_images_become_what_the_input_needs(self, tmp_path: Path) -> None:
        array = pixels()
        rgba = np.dstack([array, np.zeros((4, 6), np.uint8)])
        save_image(tmp_path / "alpha.png", rgba)
        assert np.array_equal(read_sample([tmp_path / "alpha.png"], [RGB])["x"], own(array))
        grey = array[..., 0]
        save_image(tmp_path / "grey.png", grey)
        assert np.array_equal(read_sample([tmp_path / "grey.png"], [RGB])["x"], own(np.dstack([grey] * 3)))
        single = InputSpec("g", (1, 1, 4, 6), layout="nchw")
        assert np.array_equal(read_sample([tmp_path / "grey.png"], [single])["g"][0, 0], grey)
        Image.fromarray(array).quantize(4).save(tmp_path / "palette.png")
        assert len(np.unique(read_sample([tmp_path / "palette.png"], [RGB])["x"][0, 0])) > 1

    def test_16_bit_grey_is_scaled_not_clipped(self, tmp_path: Path) -> None:
        save_image(tmp_path / "deep.png", np.full((4, 6), 0x4000, np.uint16))
        assert (read_sample([tmp_path / "deep.png"], [RGB])["x"] == 0x40).all()

    def test_exif_orientation_is_left_as_it_is(self, tmp_path: Path) -> None:
        exif = Image.Exif()
        exif[0x0112] = 3  # turned by 180 degrees
        halves = np.zeros((4, 6, 3), np.uint8)
        halves[:, 3:] = 255
        Image.fromarray(halves).save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
        values = read_sample([tmp_path / "a.jpg"], [RGB])["x"]
        assert values[..., 0].mean() < 50 < 200 < values[..., -1].mean()

    def test_one_image_fills_a_batch(self, tmp_path: Path) -> None:
        array = save_image(tmp_path / "a.png")
        values = read_sample([tmp_path / "a.png"], [InputSpec("x", (3, 3, 4, 6), layout="nchw")])["x"]
        assert np.array_equal(values, np.repeat(own(array), 3, axis=0))

    @pytest.mark.parametrize("spec", [InputSpec("x", (1, 4, 8, 8), layout="nchw"), VECTOR])
    def test_images_are_refused_where_only_npy_fits(self, tmp_path: Path, spec: InputSpec) -> None:
        save_image(tmp_path / "a.png")
        error = refusal(listing(tmp_path, "a.png"), [spec])
        assert "is an image, which does not fit input" in error.what
        assert "only npy fits" in error.hint

    def test_damaged_images_are_told_with_their_line(self, tmp_path: Path) -> None:
        save_image(tmp_path / "good.jpg", pixels(64, 64))
        whole = (tmp_path / "good.jpg").read_bytes()
        for content in (whole[: len(whole) // 2], whole[:100], b"", b"<html>not found</html>"):
            (tmp_path / "bad.jpg").write_bytes(content)
            error = refusal(listing(tmp_path, "good.jpg", "bad.jpg"), [RGB])
            assert error.where.endswith("dataset.txt line 2")
            assert error.what.startswith("bad.jpg: is ")

    @settings(deadline=None)
    @given(st.data())
    def test_no_damage_ends_in_another_error(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        buffer = io.BytesIO()
        Image.fromarray(pixels()).save(buffer, data.draw(st.sampled_from(["png", "bmp", "jpeg"])))
        content = bytearray(buffer.getvalue())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        path = tmp_path_factory.getbasetemp() / "damaged.png"
        path.write_bytes(content)
        try:
            result = read_sample([path], [RGB])["x"]
        except DatasetError:
            return
        assert result.shape == RGB.shape

    def test_other_image_formats_are_refused_whatever_their_name(self, tmp_path: Path) -> None:
        buffer = io.BytesIO()
        Image.fromarray(pixels()).save(buffer, "gif")
        (tmp_path / "a.png").write_bytes(buffer.getvalue())
        assert "is not a JPEG, PNG or BMP image" in str(refusal(listing(tmp_path, "a.png"), [RGB]))

    @pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
    @pytest.mark.parametrize("side", [10_001, 40_000])
    def test_an_image_that_would_fill_the_memory_is_refused(self, tmp_path: Path, side: int) -> None:
        header = struct.pack("<2sIHHI IiiHHIIiiII", b"BM", 54, 0, 0, 54, 40, side, side, 1, 24, 0, 0, 0, 0, 0, 0)
        (tmp_path / "bomb.bmp").write_bytes(header)
        assert "100 million allowed" in str(refusal(listing(tmp_path, "bomb.bmp"), [RGB]))


class TestNpy:
    def test_four_dimensions_are_nhwc(self, tmp_path: Path) -> None:
        array = pixels().astype(np.float32)
        np.save(tmp_path / "full.npy", array[np.newaxis])
        np.save(tmp_path / "batchless.npy", array)
        np.save(tmp_path / "fortran.npy", np.asfortranarray(array[np.newaxis]))
        np.save(tmp_path / "big-endian.npy", array[np.newaxis].astype(">f8"))
        for file in tmp_path.glob("*.npy"):
            assert np.array_equal(read_sample([file], [RGB])["x"], own(array)), file.name

    def test_nchw_that_fits_is_taken_and_told_once(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        np.save(tmp_path / "a.npy", own(pixels()))
        np.save(tmp_path / "b.npy", own(pixels()))
        with caplog.at_level(logging.WARNING, "engine"):
            samples = list(Dataset(listing(tmp_path, "a.npy", "b.npy"), [RGB]))
        assert all(np.array_equal(sample["x"], own(pixels())) for sample in samples)
        assert len(caplog.records) == 1
        assert "taken as nchw" in caplog.text

    def test_nhwc_wins_where_both_fit(self) -> None:
        cube = np.arange(27.0).reshape(1, 3, 3, 3)
        values = read_sample([cube], [InputSpec("x", (1, 3, 3, 3), layout="nchw")])["x"]
        assert np.array_equal(values, cube.transpose(0, 3, 1, 2))

    def test_nhwc_models_take_their_own_shape(self) -> None:
        array = pixels()[np.newaxis]
        values = read_sample([array], [InputSpec("x", (1, 4, 6, 3), layout="nhwc")])["x"]
        assert np.array_equal(values, array)

    def test_npy_is_normalized_and_takes_the_models_dtype(self) -> None:
        sample = read_sample(
            [np.full((1, 5), 7, np.uint8), np.array([[1.0, 2.0]])],
            [InputSpec("v", (1, 5), mean=(3,), std=(2,)), InputSpec("ids", (1, 2), "int64")],
        )
        assert sample["v"].tolist() == [[2.0] * 5]
        assert (sample["ids"].dtype, sample["ids"].tolist()) == (np.int64, [[1, 2]])

    def test_other_ranks_get_a_missing_batch_and_fill_a_larger_one(self) -> None:
        assert read_sample([np.arange(5.0)], [VECTOR])["v"].tolist() == [[0, 1, 2, 3, 4]]
        assert read_sample([np.array([[1.0, 2.0]])], [InputSpec("v", (3, 2))])["v"].tolist() == [[1, 2]] * 3

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.zeros((1, 4, 5, 3)), "expected shape nhwc (1, 4, 6, 3) for input 'x', got (1, 4, 5, 3)"),
            (np.zeros((1000, 4, 6, 3), np.uint8), "got (1000, 4, 6, 3)"),
            (np.zeros((4, 6)), "got (4, 6)"),
            (np.zeros((1, 4, 6, 3), complex), "expected numbers, got an array of dtype complex128"),
            (np.zeros((1, 4, 6, 3), [("a", "f4")]), "expected numbers"),
        ],
    )
    def test_arrays_that_do_not_fit_are_told_with_what_was_expected(
        self, tmp_path: Path, array: Any, message: str
    ) -> None:
        np.save(tmp_path / "a.npy", array)
        error = refusal(listing(tmp_path, "a.npy"), [RGB])
        assert error.what.startswith("a.npy: ")
        assert message in error.what

    def test_pickled_objects_are_never_loaded(self, tmp_path: Path) -> None:
        class Trap:
            def __reduce__(self) -> Any:
                return Path(tmp_path / "sprung").touch, ()

        np.save(tmp_path / "a.npy", np.full((1, 4, 6, 3), Trap(), dtype=object), allow_pickle=True)
        assert "dtype object" in str(refusal(listing(tmp_path, "a.npy"), [RGB]))
        assert not (tmp_path / "sprung").exists()

    def test_truncated_files_and_lying_headers_are_refused(self, tmp_path: Path) -> None:
        file = tmp_path / "a.npy"
        np.save(file, np.zeros((1, 4, 6, 3), np.float32))
        whole = file.read_bytes()
        damaged = {
            whole[:-1]: "is truncated: its header promises 288 bytes of data, the file has 287",
            whole + b"\0": "is damaged: its header promises 288 bytes of data, the file has 289",
            whole.replace(b"(1, 4, 6, 3)", b"(9**9**9999)"): "is not a valid npy file",
            whole.replace(b"(1, 4, 6, 3), }  ", b"(99999999999999,), }"): "got (99999999999999,)",
            whole.replace(b"(1, 4, 6, 3)", b"(1,-4,-6, 3)"): "got (1, -4, -6, 3)",
            whole[:40]: "is not a valid npy file",
            b"": "is not a valid npy file",
            b"PK\x03\x04 not npz": "is not a valid npy file",
            b"\x93NUMPY\x02\0" + struct.pack("<I", 2**32 - 1) + b" " * 100: "is not a valid npy file",
        }
        for content, message in damaged.items():
            file.write_bytes(content)
            assert message in str(refusal(listing(tmp_path, "a.npy"), [RGB])), content[:60]

    @settings(deadline=None)
    @given(st.binary(max_size=200))
    def test_any_bytes_after_the_magic_end_in_a_dataset_error(
        self, tmp_path_factory: pytest.TempPathFactory, content: bytes
    ) -> None:
        path = tmp_path_factory.getbasetemp() / "damaged.npy"
        path.write_bytes(b"\x93NUMPY\x01\0" + content)
        with pytest.raises(DatasetError):
            read_sample([path], [RGB])

    def test_a_header_that_claims_to_be_huge_is_not_read_into_memory(self, tmp_path: Path) -> None:
        with (tmp_path / "a.npy").open("wb") as file:
            file.write(b"\x93NUMPY\x02\0" + struct.pack("<I", 2**28))
            file.truncate(2**28 + 12)
        path = listing(tmp_path, "a.npy")
        tracemalloc.start()
        try:
            assert "is not a valid npy file" in str(refusal(path, [RGB]))
            assert tracemalloc.get_traced_memory()[1] < 2**24
        finally:
            tracemalloc.stop()

    def test_nan_is_counted_with_file_and_line(self, tmp_path: Path) -> None:
        array = np.zeros((1, 4, 6, 3), np.float32)
        array[0, 1, 2, 0] = np.nan
        array[0, 3, 0, 2] = np.inf
        np.save(tmp_path / "a.npy", array)
        error = refusal(listing(tmp_path, "", "a.npy"), [RGB])
        assert error.where.endswith("dataset.txt line 2")
        assert error.what == "a.npy: 2 of 72 values are NaN or infinite, the first at index (0, 1, 2, 0)"


class TestReadSample:
    @pytest.mark.parametrize(
        ("files", "message"),
        [
            ("a.png", "expected a list of 1 path, got one str"),
            (["a.png", "b.png"], "expected 1 path, got 2 (one for each model input: 'x')"),
            (["gone.png"], "gone.png: does not exist"),
            (["a.tiff"], "unknown extension '.tiff'"),
            ([[1, 2]], "input 'x': expected a path or a numpy array, got list"),
            ([np.zeros((2, 2))], "input 'x': expected shape nhwc (1, 4, 6, 3)"),
        ],
    )
    def test_what_cannot_be_read_is_told(self, files: Any, message: str) -> None:
        with pytest.raises(DatasetError) as caught:
            read_sample(files, [RGB])
        assert message in str(caught.value)

    def test_folders_and_pipes_are_refused_without_waiting(self, tmp_path: Path) -> None:
        (tmp_path / "folder.png").mkdir()
        with pytest.raises(DatasetError, match="is a folder"):
            read_sample([tmp_path / "folder.png"], [RGB])
        os.mkfifo(tmp_path / "pipe.npy")
        with pytest.raises(DatasetError, match="does not exist"):
            read_sample([tmp_path / "pipe.npy"], [RGB])


def test_a_thousand_images_need_no_more_memory_than_ten(tmp_path: Path) -> None:
    spec = InputSpec("x", (1, 3, 32, 32), layout="nchw", mean=(1, 2, 3))
    for index in range(10):
        save_image(tmp_path / f"{index}.png", pixels(32, 32))

    def peak(samples: int) -> int:
        data = Dataset(listing(tmp_path, *[f"{i % 10}.png" for i in range(samples)]), [spec])
        for sample in data:  # imports and caches of the first pass are not the dataset's
            sample.clear()
            break
        tracemalloc.start()
        try:
            for sample in data:
                assert sample["x"].nbytes == 12288
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    # Half of what keeping even a fiftieth of the thousand samples would add.
    assert peak(1000) < peak(10) + 10 * 12288
