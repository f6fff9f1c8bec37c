"""What gRPC tools expect of any server: its health, and what it serves."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from omendb_router.face_serving import Faces as Serving
from omendb_router.face_serving import Place
from omendb_router.grpc_face import SERVICE
from tests.unit.faces.conftest import ABOUT, Faces

ANY = Place("127.0.0.1", 0)
STATES = health_pb2.HealthCheckResponse


@pytest.mark.parametrize("name", ["", SERVICE])
def test_health_follows_the_face_and_a_watch_does_not_hold_the_drain(faces: Faces, name: str) -> None:
    async def story() -> None:
        served = Serving(faces.router, ABOUT)
        await served.start(ANY, ANY)
        async with grpc.aio.insecure_channel(str(served.grpc)) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            asked = health_pb2.HealthCheckRequest(service=name)
            assert (await stub.Check(asked, timeout=10)).status == STATES.SERVING
            watch = stub.Watch(asked, timeout=60)
            assert (await watch.read()).status == STATES.SERVING
            # Ten seconds are given to calls that were taken; the watch must not take them.
            stopping = asyncio.create_task(served.stop())
            assert (await watch.read()).status == STATES.NOT_SERVING
            assert await watch.read() is grpc.aio.EOF
            assert await watch.code() == grpc.StatusCode.OK
            await stopping

    faces.run(story())


def test_a_face_that_does_not_serve_yet_says_so(faces: Faces) -> None:
    async def story() -> None:
        served = Serving(faces.router, ABOUT)
        told = served._grpc_health
        answers = told.Watch(health_pb2.HealthCheckRequest(service=SERVICE), None)
        assert (await anext(answers)).status == STATES.NOT_SERVING
        waiting = asyncio.ensure_future(anext(answers))
        told.set_serving(True)
        assert (await waiting).status == STATES.SERVING
        await served.stop()
        assert (await anext(answers)).status == STATES.NOT_SERVING
        with pytest.raises(StopAsyncIteration):
            await anext(answers)

    faces.run(story())


def test_an_unknown_service_has_no_health(faces: Faces) -> None:
    async def story() -> None:
        served = Serving(faces.router, ABOUT)
        await served.start(ANY, ANY)
        async with grpc.aio.insecure_channel(str(served.grpc)) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            asked = health_pb2.HealthCheckRequest(service="no.such.Service")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Check(asked, timeout=10)
            assert caught.value.code() == grpc.StatusCode.NOT_FOUND
            watch = stub.Watch(asked, timeout=60)
            assert (await watch.read()).status == STATES.SERVICE_UNKNOWN
            watch.cancel()
            listed = await stub.List(health_pb2.HealthListRequest(), timeout=10)
            assert {key: told.status for key, told in listed.statuses.items()} == {
                "": STATES.SERVING,
                SERVICE: STATES.SERVING,
            }
        await served.stop()

    faces.run(story())


def test_a_stranger_learns_every_call_by_reflection(faces: Faces) -> None:
    async def ask(stub: Any, **what: str) -> Any:
        call = stub.ServerReflectionInfo(timeout=10)
        await call.write(reflection_pb2.ServerReflectionRequest(**what))
        await call.done_writing()
        return await call.read()

    async def story() -> None:
        served = Serving(faces.router, ABOUT)
        await served.start(ANY, ANY)
        async with grpc.aio.insecure_channel(str(served.grpc)) as channel:
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            listed = await ask(stub, list_services="")
            names = {service.name for service in listed.list_services_response.service}
            assert names == {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
            answer = await ask(stub, file_containing_symbol=SERVICE)
            files = [
                descriptor_pb2.FileDescriptorProto.FromString(data)
                for data in answer.file_descriptor_response.file_descriptor_proto
            ]
            calls = {call.name for file in files for service in file.service for call in service.method}
            assert {"Search", "Upsert", "ServerInfo"} <= calls
        await served.stop()

    faces.run(story())
