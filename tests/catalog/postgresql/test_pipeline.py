"""The pipeline on a connection of its own."""

from __future__ import annotations

import select
import threading

import psycopg

from digestry.catalog.postgresql.pipeline import Answer, Pipeline, server_statement


def test_a_server_that_speaks_unasked_is_not_waited_for(url: str) -> None:
    """Notices come at any time, such as the last words of a server that is restarted."""
    with psycopg.connect(url, autocommit=True) as own, psycopg.connect(url, autocommit=True) as other:
        own.execute("LISTEN idle")
        pipeline = Pipeline(own)
        pipeline.open()
        answer = Answer()
        pipeline.send(server_statement("SELECT 1"), [], answer)
        pipeline.end()
        while not (pipeline.flush() and pipeline.receive()):
            select.select([own.fileno()], [], [], 10)
        assert answer.rows == [(1,)]
        other.execute("NOTIFY idle")
        assert select.select([own.fileno()], [], [], 10)[0]
        received: list[bool] = []
        thread = threading.Thread(target=lambda: received.append(pipeline.receive()), daemon=True)
        thread.start()
        thread.join(20)
        assert received == [False]
        pipeline.close()
