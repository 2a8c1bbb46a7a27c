"""The bare server that ours is measured against: uvicorn, uvloop, httptools and one fixed answer.

    python bench/reference.py --port 9000 --answer answer.json

``answer.json`` holds ``{"status": 200, "headers": [["name", "value"], ...], "body": "..."}``.
Whatever is asked gets that answer, so what is left is the price of HTTP itself.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvicorn

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


def answering(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> Application:
    """Return an ASGI application that reads a request to its end and gives this answer."""
    start = {"type": "http.response.start", "status": status, "headers": headers}
    rest = {"type": "http.response.body", "body": body}

    async def application(scope: Message, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            while (await receive()).get("more_body"):
                pass
        await send(start)
        await send(rest)

    return application


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--answer", type=Path, required=True)
    arguments = parser.parse_args()
    answer = json.loads(arguments.answer.read_text("utf-8"))
    uvicorn.run(
        answering(
            answer["status"],
            [
                (name.encode("latin-1"), value.encode("latin-1"))
                for name, value in answer["headers"]
            ],
            answer["body"].encode(),
        ),
        host="127.0.0.1",
        port=arguments.port,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
