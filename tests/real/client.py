"""The official Python client, signed in over OAuth: lists the tools and makes the calls that it is told to.

Usage: client.py URL MODE, or client.py --direct MODE COMMAND… ; MODE is the client's own (`legacy`, `auto`).
Line by line on stdin and stdout: it prints {"authorize": URL} when a person must sign in and reads {"callback": URL};
then it reads {"calls": [[tool, arguments], …]} and prints {"tools": […], "results": […]}.
"""

import asyncio
import json
import sys
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp.client import Client
from mcp.client.auth import OAuthClientProvider
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata

REDIRECT = "http://127.0.0.1:9/callback"


def say(document):
    print(json.dumps(document), flush=True)


async def hear():
    return json.loads(await asyncio.to_thread(sys.stdin.readline))


class Memory:
    """Tokens and registration, kept for as long as the process lives."""

    tokens = None
    client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client


async def redirect(url):
    say({"authorize": url})


async def callback():
    query = parse_qs(urlsplit((await hear())["callback"]).query)
    return AuthorizationCodeResult(code=query["code"][0], state=query["state"][0], iss=query.get("iss", [None])[0])


async def session(client):
    tools, cursor = [], None
    while True:
        page = await client.list_tools(cursor=cursor) if cursor else await client.list_tools()
        tools += page.tools
        cursor = page.next_cursor
        if not cursor:
            break
    results = []
    for name, arguments in (await hear())["calls"]:
        result = await client.call_tool(name, arguments)
        results.append(result.model_dump(mode="json", by_alias=True, exclude_none=True))
    say({
        "tools": [tool.model_dump(mode="json", by_alias=True, exclude_none=True) for tool in tools],
        "results": results,
    })


async def main():
    if sys.argv[1] == "--direct":
        mode, command, *arguments = sys.argv[2:]
        transport = stdio_client(StdioServerParameters(command=command, args=arguments))
        async with Client(transport, mode=mode) as client:
            await session(client)
        return
    url, mode = sys.argv[1:]
    auth = OAuthClientProvider(
        url,
        OAuthClientMetadata(
            client_name="python client",
            redirect_uris=[REDIRECT],
            grant_types=["authorization_code", "refresh_token"],
            response_types=["code"],
            token_endpoint_auth_method="none",
        ),
        Memory(),
        redirect,
        callback,
    )
    async with httpx2.AsyncClient(auth=auth, timeout=60) as http:
        async with Client(streamable_http_client(url, http_client=http), mode=mode) as client:
            await session(client)


asyncio.run(main())
