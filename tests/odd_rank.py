"""A rank that does what its task says instead of training: `python -m odd_rank RANK SIZE`. Loads nothing."""

import json
import os
import signal
import sys


def main() -> int:
    task = json.loads(sys.stdin.readline())
    print("a library's line", file=sys.stderr)
    match task["do"]:
        case "fail":
            print(json.dumps({"failed": {"text": "no room for block 7.", "fix": "Lower resolution.", "lost": False}}), flush=True)
            return 1
        case "lose":  # for rank 2 has ended, which says so a moment later
            if sys.argv[1] == "1":
                print(json.dumps({"failed": {"text": "waited in vain.", "fix": "", "lost": True}}), flush=True)
                return 1
            os.kill(os.getpid(), signal.SIGKILL)
        case "warn":
            for text in ("both say this", "only this one says that"):
                notice = {"code": "told", "text": text, "fix": "", "level": "warning", "sample": ""}
                print(json.dumps({"notice": notice}), flush=True)
            print(json.dumps({"ready": True}), flush=True)
        case "meet":
            print(json.dumps({"ready": True}), flush=True)
            print(json.dumps({"failed": {"text": f"heard {sys.stdin.readline().strip()}"}}), flush=True)
            return 1
        case "garble":  # as a library prints, and as one ends that is killed while it speaks
            print("[1, 2]\nWARNING: none of JSON", flush=True)
            print('{"failed": {"te', end="", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(main())
