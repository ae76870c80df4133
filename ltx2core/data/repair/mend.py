"""Does one Repair: decodes the parts that are kept, changes their pictures, and writes each as H.264 and AAC in an mp4, whole or none."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
from av.filter import Graph
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from ltx2core.data.media import audio_stream, open_media, reading, upright_rotation, video_stream
from ltx2core.data.repair.tone import HLG, PQ, tone_map
from ltx2core.data.write import AAC_RATES, exact_rate
from ltx2core.errors import DatasetError
from ltx2core.runs.files import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from av.container.input import InputContainer
    from av.container.output import OutputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    from ltx2core.data.repair.plan import Repair

_CRF = 14  # a second encoding that is not seen beside the first
_MATRICES = {1: "bt709", 4: "fcc", 5: "bt470", 6: "smpte170m", 7: "smpte240m", 9: "bt2020", 10: "bt2020"}
_BT709, _BT601, _UNNAMED, _RGB = 1, 6, 2, 0
_EARLY = 1e-4  # seconds by which a timestamp may be rounded
_TURNS: dict[int, tuple[tuple[str, str], ...]] = {
    90: (("transpose", "cclock"),),
    180: (("hflip", ""), ("vflip", "")),
    270: (("transpose", "clock"),),
}


def mend(path: Path, repair: Repair, targets: Sequence[Path]) -> list[int]:
    """Write each kept segment of the clip at `path` to its target; the frames of each come back.

    Raises DatasetError when the clip cannot be decoded or a segment has no frame, StorageError when a target cannot be written.
    """
    if len(targets) != len(repair.segments):
        raise ValueError(f"{len(repair.segments)} segments and {len(targets)} targets")
    if not repair.encode:
        return [_copy(path, targets[0], keep_sound=repair.sound == "keep")]
    written: list[int] = []
    with reading(path) as container:
        stream = video_stream(container)
        if stream is None:
            raise DatasetError(f"{path} holds no video.", fix="Remove it from the folder.")
        stream.thread_type = "SLICE"
        frames = _Frames(container, stream)
        for (start, end), target in zip(repair.segments, targets, strict=True):
            with replacing(target) as temporary:
                part = _Part(path, repair, stream, start=start)
                written.append(part.write(temporary, frames.between(start, end)))
    return written


def _copy(path: Path, target: Path, *, keep_sound: bool) -> int:
    """The same pictures in an mp4, packet by packet, with or without the sound."""
    count = 0
    with reading(path) as source, replacing(target) as temporary, av.open(f"file:{temporary}", "w", format="mp4") as container:
        video, audio = video_stream(source), audio_stream(source) if keep_sound else None
        kept = {stream.index: container.add_stream_from_template(stream) for stream in (video, audio) if stream is not None}
        for packet in source.demux(*(stream for stream in (video, audio) if stream is not None)):
            if packet.dts is None:
                continue
            count += video is not None and packet.stream_index == video.index
            packet.stream = kept[packet.stream_index]
            container.mux(packet)
    return count


class _Frames:
    """The frames of a clip with their times after the first, up to the first that cannot be decoded."""

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._source = self._decode(container, stream)
        self._next: tuple[float, VideoFrame] | None = None

    def between(self, start: float, end: float | None) -> Iterator[tuple[float, VideoFrame]]:
        """Those shown from start on and before end. Parts are asked for in their order."""
        while (found := self._next or next(self._source, None)) is not None:
            self._next = None
            if end is not None and found[0] >= end - _EARLY:
                self._next = found
                return
            if found[0] >= start - _EARLY:
                yield found

    def _decode(self, container: InputContainer, stream: VideoStream) -> Iterator[tuple[float, VideoFrame]]:
        first: float | None = None
        try:
            for frame in container.decode(stream):
                if frame.pts is None:
                    continue
                first = frame.time if first is None else first
                yield frame.time - first, frame
        except MemoryError:
            raise
        except (av.FFmpegError, OSError):
            if first is None:
                raise


class _Part:
    """One segment on its way into a file."""

    def __init__(self, path: Path, repair: Repair, source: VideoStream, *, start: float) -> None:
        self.path, self.repair, self.source, self.start = path, repair, source, start
        self.rate = exact_rate(repair.rate) if repair.rate else Fraction(source.average_rate or 25)
        self._reformatter = VideoReformatter()

    def write(self, target: Path, frames: Iterator[tuple[float, VideoFrame]]) -> int:
        """Encode the frames and the sound that belongs to them; how many frames were written."""
        first = next(frames, None)
        if first is None:
            raise DatasetError(f"{self.path} has no picture from {self.start:.2f} s on.", fix="Scan its folder again.")
        matrix = self._matrix(first[1])
        graph = self._graph(first[1], matrix)
        options = {"movflags": "+faststart", "movie_timescale": "48000"}
        with av.open(f"file:{target}", "w", format="mp4", options=options) as container:
            track = self._sound_track()
            rate = track.sample_rate if track is not None else 0
            audio = container.add_stream("aac", rate=rate, layout=track.layout) if track is not None else None
            stream: VideoStream | None = None
            count = 0
            for picture in self._filtered(graph, first, frames):
                if stream is None:
                    stream = self._video(container, picture, _BT709 if self.repair.tone_map else matrix)
                picture.pts, picture.time_base = count, 1 / self.rate
                container.mux(stream.encode(picture))
                count += 1
            if stream is None:
                raise DatasetError(f"{self.path} has no picture from {self.start:.2f} s on.", fix="Scan its folder again.")
            container.mux(stream.encode(None))
            if track is not None and audio is not None:
                audio.bit_rate = 192_000
                for frame in track.frames(self.start, self.start + count / float(self.rate)):
                    container.mux(audio.encode(frame))
                container.mux(audio.encode(None))
        return count

    def _video(self, container: OutputContainer, picture: VideoFrame, matrix: int) -> VideoStream:
        stream = container.add_stream("libx264", rate=self.rate, options={"crf": str(_CRF), "preset": "medium"})
        stream.width, stream.height, stream.pix_fmt = picture.width, picture.height, "yuv420p"
        stream.colorspace, stream.color_range = matrix, 1
        if self.repair.tone_map:
            stream.color_primaries = stream.color_trc = _BT709
        return stream

    def _matrix(self, frame: VideoFrame) -> int:
        """The colour matrix of the frames; an unnamed one is guessed as players do, and then named, since cropping may change the guess."""
        named = int(frame.colorspace)
        if named == _RGB:
            return _BT709
        if named in _MATRICES and named != _UNNAMED:
            return named
        return _BT709 if max(frame.width, frame.height) >= 1280 or min(frame.width, frame.height) >= 720 else _BT601

    def _graph(self, frame: VideoFrame, matrix: int) -> Graph:
        """From decoded frames to pictures at the rate that is written: 4:2:0, or 16 bits of red, green and blue for tone mapping."""
        repair, name = self.repair, _MATRICES[matrix]
        chain: list[tuple[str, str]] = [("bwdif", "mode=send_frame:deint=all")] if repair.deinterlace else []
        if repair.crop is not None:
            # 4:2:0 has no odd lines: a bar of odd width takes one line of the picture with it
            left, top = repair.crop.left + repair.crop.left % 2, repair.crop.top + repair.crop.top % 2
            width = (frame.width - left - repair.crop.right) // 2 * 2
            height = (frame.height - top - repair.crop.bottom) // 2 * 2
            chain.append(("crop", f"{width}:{height}:{left}:{top}"))
        chain += _TURNS.get(upright_rotation(frame), ())  # the new file has no display matrix: whatever turned the old one is baked in
        ratio = self.source.sample_aspect_ratio
        if ratio and ratio != 1 and 0.1 < ratio < 10:
            chain += [("scale", "w=trunc(iw*sar/2)*2:h=trunc(ih/2)*2:flags=bicubic"), ("setsar", "1")]
        chain.append(("fps", f"fps={self.rate.numerator}/{self.rate.denominator}"))
        if repair.tone_map:
            chain += [("scale", "in_color_matrix=bt2020:out_range=pc:flags=bicubic+accurate_rnd+full_chroma_int"), ("format", "rgb48le")]
        else:
            given = "" if int(frame.colorspace) == _RGB else f"in_color_matrix={name}:"
            sides = "w=trunc(iw/2)*2:h=trunc(ih/2)*2"
            chain += [("scale", f"{sides}:{given}out_color_matrix={name}:out_range=tv:flags=bicubic+accurate_rnd"), ("format", "yuv420p")]
        return _linked(self.source, frame, chain)

    def _filtered(self, graph: Graph, first: tuple[float, VideoFrame], frames: Iterator[tuple[float, VideoFrame]]) -> Iterator[VideoFrame]:
        transfer = int(first[1].color_trc)
        graph.vpush(first[1])
        yield from self._pull(graph, transfer)
        for _, frame in frames:
            graph.vpush(frame)
            yield from self._pull(graph, transfer)
        graph.vpush(None)
        yield from self._pull(graph, transfer)

    def _pull(self, graph: Graph, transfer: int) -> Iterator[VideoFrame]:
        while True:
            try:
                frame = graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            yield self._mapped(frame, transfer) if self.repair.tone_map and transfer in (PQ, HLG) else frame

    def _mapped(self, frame: VideoFrame, transfer: int) -> VideoFrame:
        picture = tone_map(frame.to_ndarray().astype(np.uint16, copy=False), transfer)
        height, width = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
        rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), format="rgb24")
        return self._reformatter.reformat(
            rgb, format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, threads=1
        )

    def _sound_track(self) -> _SoundTrack | None:
        if self.repair.sound == "drop":
            return None
        with open_media(self.path) as container:
            stream = audio_stream(container)
            if stream is None:
                return None
            rate = stream.rate if stream.rate in AAC_RATES else 48000
            return _SoundTrack(self.path, sample_rate=rate, layout="mono" if stream.channels == 1 else "stereo")


def _linked(source: VideoStream, frame: VideoFrame, chain: Sequence[tuple[str, str]]) -> Graph:
    graph = Graph()
    time_base = source.time_base or Fraction(1, 1000)
    last = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=time_base)
    for name, arguments in chain:
        following = graph.add(name, arguments or None)
        last.link_to(following)
        last = following
    last.link_to(graph.add("buffersink"))
    graph.configure()
    return graph


@dataclass(frozen=True, slots=True)
class _SoundTrack:
    """The sound of a clip, in one or two channels; more are mixed down."""

    path: Path
    sample_rate: int
    layout: str

    def frames(self, start: float, end: float) -> Iterator[av.AudioFrame]:
        """What sounds from start to end, in seconds after the first picture, as frames for an encoder; gaps are silent."""
        samples = self._samples(start, end)
        size = 1024  # AAC's
        for begin in range(0, samples.shape[1], size):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[:, begin : begin + size]), format="fltp", layout=self.layout)
            frame.sample_rate, frame.pts, frame.time_base = self.sample_rate, begin, Fraction(1, self.sample_rate)
            yield frame

    def _samples(self, start: float, end: float) -> NDArray[np.float32]:
        count = round((end - start) * self.sample_rate)
        samples = np.zeros((1 if self.layout == "mono" else 2, count), dtype=np.float32)
        filled = 0
        with open_media(self.path) as container:
            video, stream = video_stream(container), audio_stream(container)
            assert stream is not None
            zero = (
                float(video.start_time * video.time_base) if video is not None and video.start_time is not None and video.time_base else 0.0
            )
            mixer = av.AudioResampler(format="fltp", layout=self.layout, rate=self.sample_rate)
            at: int | None = None
            try:
                for frame in container.decode(stream):
                    place = round((frame.time - zero - start) * self.sample_rate) if frame.time is not None else at or 0
                    if at is None or abs(place - at) > 0.02 * self.sample_rate:  # less is rounding, not a gap
                        at = place
                    for part in mixer.resample(frame):
                        at = _lay(samples, part.to_ndarray().astype(np.float32, copy=False), at)
                        filled = max(filled, min(at, count))
                    if at >= count:
                        break
            except MemoryError:
                raise
            except (av.FFmpegError, OSError):  # damaged from here on: what came before is kept
                pass
        return samples[:, :filled]


def _lay(samples: NDArray[np.float32], part: NDArray[np.float32], at: int) -> int:
    """Copy what of `part` lies inside; the place of the next sample comes back."""
    begin, end = max(at, 0), min(at + part.shape[1], samples.shape[1])
    if begin < end:
        samples[:, begin:end] = part[:, begin - at : end - at]
    return at + int(part.shape[1])
