"""A search of a sharded collection explained: by one replica of each shard, and measured over all of them."""

from __future__ import annotations

import pytest

from omendb_common.errors import UnavailableError
from omendb_common.filters import FilterOp as F
from omendb_router.face_calls import Question
from tests.unit.router.router_cases import Cluster, play, put, vector

ROWS = 30


def test_every_shard_tells_and_the_hits_of_all_are_measured() -> None:
    async def story(cluster: Cluster) -> None:
        router = await cluster.router()
        await cluster.collection(shards=2, replication=3)
        rows = [{"n": n} for n in range(ROWS)]
        await put(router, list(range(ROWS)), [float(n) for n in range(ROWS)], cluster.soon(), rows=rows)
        question = Question(vector(3.0, 20.0), 5, condition=F.lt("n", 12))
        told = await router.explain("c", question, measure=True, deadline=cluster.soon())
        assert {plan.shard for plan in told.segments} == {0, 1}
        assert {plan.node for plan in told.segments} <= set(cluster.network)
        assert told.matching == told.comparisons == 12 and told.measured_recall == 1.0
        plain = await router.explain("c", question._replace(condition=None), measure=False, deadline=cluster.soon())
        assert plain.matching == ROWS and plain.measured_recall is None
        cluster.weather("d1", down=True)
        again = await router.explain("c", question, measure=True, deadline=cluster.soon())
        assert again.measured_recall == 1.0

    play(story, engine=True)


def test_a_node_that_cannot_tell_is_named() -> None:
    async def story(cluster: Cluster) -> None:
        router = await cluster.router()
        await cluster.collection()
        with pytest.raises(UnavailableError, match="of a release that does not tell"):
            await router.explain("c", Question(vector(1.0), 1), measure=False, deadline=cluster.soon())

    play(story)
