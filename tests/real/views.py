"""The official Python client, asked what it sees of servers: the twin of what views.mjs does within itself.

Line by line on stdin, each at once: {"id", "mode", "roots", "calls": [[tool, arguments], …], "after", "late"} with {"url",
"token"} or {"command", "env", "cwd"}. On stdout {"id", "view"} or {"id", "failed"}, as they are done.
"""

import asyncio
import json
import sys
import warnings

import httpx2
from mcp import types
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

warnings.simplefilter("ignore")
SECONDS = 30


def plain(model):
    """What was on the wire, and no more."""
    return model.model_dump(mode="json", by_alias=True, exclude_unset=True)


async def attempt(awaited):
    try:
        return await awaited
    except MCPError as error:
        return {"error": {"code": error.code, "message": error.message, "data": error.data}}


async def pages(fetch):
    found, cursor = [], None
    while True:
        page = await (fetch() if cursor is None else fetch(cursor=cursor))
        found.append(plain(page))
        cursor = page.next_cursor
        if cursor is None:
            return found


async def called(client, name, arguments):
    return plain(await client.call_tool(name, arguments))


async def has_tool(client, name):
    listed = await client.list_tools(cache_mode="refresh")
    return any(tool.name == name for tool in listed.tools)


async def look(client, job):
    async def wait_for_the_late():
        while not await has_tool(client, job["late"]):
            await asyncio.sleep(0.05)

    if job.get("late"):
        await asyncio.wait_for(wait_for_the_late(), SECONDS)
    server = client.server_info
    return {
        "version": client.protocol_version,
        # A client that is told the revision takes it for granted and asks nothing.
        "about": None if job["mode"].startswith("2") else {
            "info": server and plain(server),
            "capabilities": plain(client.server_capabilities),
            "instructions": client.instructions,
        },
        "lists": {
            "tools/list": await attempt(pages(client.list_tools)),
            "prompts/list": await attempt(pages(client.list_prompts)),
            "resources/list": await attempt(pages(client.list_resources)),
            "resources/templates/list": await attempt(pages(client.list_resource_templates)),
        },
        "results": [await attempt(called(client, name, arguments)) for name, arguments in job["calls"] + job.get("after", [])],
    }


async def sample(context, params):
    return types.CreateMessageResult(role="assistant", model="none", content=types.TextContent(type="text", text="none"))


async def elicit(context, params):
    return types.ElicitResult(action="decline")


async def view(job, transport, done):
    async def roots(context):
        return types.ListRootsResult(roots=[types.Root(**root) for root in job["roots"]])

    client = Client(transport, mode=job["mode"], sampling_callback=sample, elicitation_callback=elicit, list_roots_callback=roots)
    async with client:
        # Said before the end of a server, which some take their time for.
        done({"view": await look(client, job)})


async def serve(job):
    def done(outcome):
        print(json.dumps({"id": job["id"], **outcome}), flush=True)

    try:
        if "url" in job:
            headers = {"authorization": f"Bearer {job['token']}"}
            async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
                await view(job, streamable_http_client(job["url"], http_client=http), done)
        else:
            command, *arguments = job["command"]
            parameters = StdioServerParameters(command=command, args=arguments, env=job["env"], cwd=job["cwd"])
            await view(job, stdio_client(parameters, errlog=sys.stderr), done)
    except Exception as error:
        done({"failed": repr(error)})


async def main():
    running = set()
    while line := await asyncio.to_thread(sys.stdin.readline):
        running.add(asyncio.create_task(serve(json.loads(line))))
    await asyncio.gather(*running)


asyncio.run(main())
