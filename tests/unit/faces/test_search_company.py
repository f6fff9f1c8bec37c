"""Searches of one turn are asked as one: each gets what it would have got alone, whatever becomes of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from omendb_common.clock import SystemClock
from omendb_common.deadline import Deadline
from omendb_common.errors import InvalidArgumentError, UnavailableError
from omendb_common.payload import columns_from_rows
from omendb_common.wire import convert
from omendb_proto.v1 import router_pb2 as pb
from omendb_router.search_company import TOGETHER_MAX, SearchCompany
from tests.unit.faces.conftest import Faces

V = np.random.default_rng(5).random((300, 4), dtype=np.float32)


def soon(timeout_s: float = 20.0) -> Deadline:
    return Deadline.after(SystemClock(), timeout_s)


def asking(number: int, k: int = 3, **more: Any) -> pb.SearchRequest:
    return pb.SearchRequest(collection="c", queries=V[number].tobytes(), dimension=4, k=k, **more)


class Counting:
    """Answers with the first number of each query; ``bad`` ones are refused, with everything that came with them."""

    def __init__(self) -> None:
        self.companies: list[int] = []
        self.deadlines: list[Deadline] = []
        self.fail: Exception | None = None
        self.bad: bytes = b"none"
        self.let_go: asyncio.Event | None = None

    async def __call__(self, together: Sequence[pb.SearchRequest], deadline: Deadline) -> list[pb.SearchReply]:
        self.companies.append(len(together))
        self.deadlines.append(deadline)
        if self.let_go is not None:
            await self.let_go.wait()
        if self.fail is not None:
            raise self.fail
        if any(one.queries == self.bad for one in together):
            raise InvalidArgumentError("bad", field="queries")
        return [pb.SearchReply(distances=one.queries) for one in together]


def test_those_of_one_turn_are_one_and_each_gets_its_own_answer() -> None:
    async def story() -> None:
        ask = Counting()
        company = SearchCompany(ask)
        found = await asyncio.gather(*(company.search(asking(n), soon()) for n in range(2 * TOGETHER_MAX + 1)))
        assert [f.distances for f in found] == [V[n].tobytes() for n in range(2 * TOGETHER_MAX + 1)]
        assert ask.companies == [TOGETHER_MAX, TOGETHER_MAX, 1]
        await company.search(asking(0), soon())
        assert ask.companies[3:] == [1] and not company._groups

    asyncio.run(story())


def test_what_says_something_else_goes_by_itself() -> None:
    async def story() -> None:
        ask = Counting()
        company = SearchCompany(ask)
        other = [
            asking(1),
            asking(1, k=4),
            asking(1, filter='{"a": 1}'),
            asking(1, ef=5),
            asking(1, ef=6),
            asking(1, score_threshold=0.0),
            asking(1, with_payload=True),
            asking(1, with_vectors=True),
            asking(1, exact=True),
            asking(1, session=b"t"),
            asking(1, consistency=pb.CONSISTENCY_MAJORITY),
            pb.SearchRequest(collection="c", queries=V[:2].tobytes(), dimension=4, k=3),
            pb.SearchRequest(collection="d", queries=V[0].tobytes(), dimension=4, k=3),
        ]
        await asyncio.gather(*(company.search(one, soon()) for one in other))
        assert ask.companies == [1] * len(other)
        # Nobody in no hurry is cut short by somebody who is.
        await asyncio.gather(company.search(asking(1), soon(20.0)), company.search(asking(2), soon(10.0)))
        assert ask.companies[len(other) :] == [1, 1]
        ask.deadlines.clear()
        early, late = soon(20.0), soon(20.01)
        await asyncio.gather(company.search(asking(1), late), company.search(asking(2), early))
        assert {d.at_s for d in ask.deadlines} in ({early.at_s}, {early.at_s, late.at_s})

    asyncio.run(story())


def test_a_bad_one_fails_alone() -> None:
    async def story() -> None:
        for bad in (0, 3):
            ask = Counting()
            ask.bad = V[bad].tobytes()
            company = SearchCompany(ask)
            found = await asyncio.gather(*(company.search(asking(n), soon()) for n in range(5)), return_exceptions=True)
            assert [type(f) for f in found].count(InvalidArgumentError) == 1
            assert isinstance(found[bad], InvalidArgumentError)
            assert ask.companies == [5, 1, 1, 1, 1, 1]
            with pytest.raises(InvalidArgumentError):
                await company.search(asking(bad), soon())
            assert ask.companies[6:] == [1], "alone it is asked once"

    asyncio.run(story())


def test_a_failure_is_everybodys_and_each_has_its_own() -> None:
    async def story() -> None:
        ask = Counting()
        ask.fail = UnavailableError("no quorum", acked=1, required=2)
        company = SearchCompany(ask)
        found = await asyncio.gather(*(company.search(asking(n), soon()) for n in range(3)), return_exceptions=True)
        assert [(type(f), str(f)) for f in found] == [(UnavailableError, str(ask.fail))] * 3
        assert len({id(f) for f in found}) == 3 and ask.companies == [3]

    asyncio.run(story())


@pytest.mark.parametrize("gone", [0, 2])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_one_that_goes_away_takes_nobody_along(gone: int, when: str) -> None:
    async def story() -> None:
        ask = Counting()
        ask.let_go = asyncio.Event()
        company = SearchCompany(ask)
        tasks = [asyncio.create_task(company.search(asking(n), soon())) for n in range(4)]
        await asyncio.sleep(0)
        while when == "meanwhile" and not ask.companies:
            await asyncio.sleep(0)
        tasks[gone].cancel()
        ask.let_go.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        for number, answer in enumerate(found):
            if number == gone:
                assert isinstance(answer, asyncio.CancelledError)
            else:
                assert isinstance(answer, pb.SearchReply) and answer.distances == V[number].tobytes()
        assert not company._groups

    asyncio.run(story())


def test_over_a_folder_the_answers_are_those_of_searches_alone(faces: Faces) -> None:
    faces.make(dimension=4)
    payload = [{"n": n, "color": "red"} if n % 3 else {"other": "x" * (n % 7)} for n in range(300)]
    faces.grpc(
        "Upsert",
        pb.UpsertRequest(
            collection="c",
            vectors=[convert.vectors_to_proto(V)],
            payload=convert.columns_to_proto(columns_from_rows(payload)),
        ),
    )
    calls = faces.calls().served()

    def content(data: bytes) -> Any:
        reply = pb.SearchReply.FromString(data)
        ids = convert.ids_from_proto(reply.ids).to_list()
        rows = convert.columns_from_proto(reply.payload, rows=len(ids))
        assert rows is not None
        told = [{name: v for name, v in row.items() if v is not None} for row in rows.to_pylist()]
        return ids, np.frombuffer(reply.distances, "<f4").round(4).tolist(), reply.counts, told, reply.vectors.data

    async def story() -> None:
        # A threshold that some queries have no hit above.
        asked = [asking(n, with_payload=True, with_vectors=True, k=20, score_threshold=0.94) for n in range(12)]
        texts = [one.SerializeToString() for one in asked]
        together = await asyncio.gather(*(calls["Search"](text, 10.0) for text in texts))
        alone = [await calls["Search"](text, 10.0) for text in texts]
        assert [content(one) for one in together] == [content(one) for one in alone]
        assert len({len(content(one)[0]) for one in alone}) > 1

    faces.run(story())
