"""The process that decodes clips for the cache: requests come in as lines of JSON, a line of JSON and the array's bytes go out.

    {"kind": "frames", "path": ..., "width": ..., "height": ..., "frames": ..., "fps": ..., "rotation": ..., "start": ..., "crop": ...}
    {"shape": [49, 512, 768, 3], "dtype": "uint8"}  or  {"error": "what is wrong with it"}

It loads neither torch nor diffusers, and ends when its input does. ahead.py starts it.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ltx2core.data.clip import Bucket, Crop
from ltx2core.data.decode import decode_frames
from ltx2core.data.linked import decode_linked, mask_tokens
from ltx2core.data.sound import read_sound
from ltx2core.data.stills import decode_still
from ltx2core.errors import DatasetError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def serve(requests: BinaryIO, answers: BinaryIO, *, threads: int) -> None:
    """Answer every request, until there are no more. threads: of FFmpeg's decoders."""
    for line in requests:
        extras: dict[str, object] = {}
        array: NDArray[Any] | None = None
        try:
            array, extras = decode(json.loads(line), threads=threads)
        except DatasetError as error:
            extras = {"error": error.text}
        except MemoryError:
            extras = {"error": "decoding it takes more memory than there is."}
        except Exception as error:  # noqa: BLE001 - the last frame of a worker: a file can make a library raise anything
            extras = {"error": f"it cannot be decoded ({type(error).__name__}: {error})."}
        if array is None:
            answers.write(json.dumps(extras).encode() + b"\n")
        else:
            array = np.ascontiguousarray(array)
            answers.write(json.dumps({"shape": array.shape, "dtype": str(array.dtype), **extras}).encode() + b"\n")
            answers.write(array.reshape(-1).view(np.uint8).data)
        answers.flush()
        del array  # while the next request is waited for, a long clip's frames would lie here, too


def decode(request: dict[str, Any], *, threads: int) -> tuple[NDArray[Any], dict[str, object]]:
    """(the array, and what else there is to say about it). Raises DatasetError for a file that cannot be used."""
    kind, path = request["kind"], Path(request["path"])
    if kind == "silence":
        count = round(request["seconds"] * request["sample_rate"])
        return np.zeros((2, count), dtype=np.float32), {"valid": count}
    if kind == "sound":
        sound = read_sound(path, seconds=request["seconds"], sample_rate=request["sample_rate"], begin=request["start"])
        if sound is None:
            raise DatasetError("its sound is gone since the scan.")
        return sound.samples, {"valid": sound.valid}
    bucket = Bucket(width=request["width"], height=request["height"], frames=request["frames"])
    across, down, zoom = request["crop"]
    crop = Crop(across=across, down=down, zoom=zoom)
    if kind == "still":
        return decode_still(path, bucket=bucket, crop=crop), {}
    if kind == "frames":
        rotation, fps, start = request["rotation"], request["fps"], request["start"]
        return decode_frames(path, bucket=bucket, fps=fps, rotation=rotation, start=start, crop=crop, threads=threads), {}
    frames = decode_linked(path, bucket=bucket, fps=request["fps"], start=request["start"], crop=crop, threads=threads)
    return (mask_tokens(frames) if kind == "mask" else frames), {}


def limit_memory(size: int) -> None:
    """Let this process take that many bytes and no more, where the system can do so."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (size, size))


def main() -> None:
    limit_memory(int(sys.argv[1]))
    serve(sys.stdin.buffer, sys.stdout.buffer, threads=int(sys.argv[2]))


if __name__ == "__main__":
    main()
