"""A scripted session of the Python client with one server, in the era that MODE makes of it: the twin of session.mjs.

Usage: session.py reference|everything MODE URL [--token TOKEN] [--prefix PREFIX] [--server-era ERA] [--shared] [--report]
   or: session.py reference|everything MODE [options] -- COMMAND…      (a server on stdio)
MODE is the client's own: legacy, auto, 2026-07-28. The options are those of session.mjs; --server-era says which eras
the server behind a tunnel knows (both, legacy, modern).
"""

import argparse
import asyncio
import json
import os
import sys
import warnings

import httpx2
from mcp import types
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

warnings.simplefilter("ignore")
# How long a step waits for what must come.
SECONDS = float(os.environ.get("TUNNEL_PATIENCE", "30"))
ROOT = types.Root(uri="file:///home/ada/notes", name="notes")


class Skipped(Exception):
    """Why a step cannot be done."""


def check(right, *about):
    if not right:
        raise AssertionError(*about)


async def until(what, test):
    end = asyncio.get_running_loop().time() + SECONDS
    while not (value := await test()):
        check(asyncio.get_running_loop().time() < end, f"{what}: not within {SECONDS} s")
        await asyncio.sleep(0.05)
    return value


async def refused(code, awaited):
    """Waits for an error with one of these codes."""
    try:
        await awaited
    except MCPError as error:
        check(error.code in code, error.code, error.message)
        return error
    raise AssertionError("no error")


class Session:
    """The client with what it sees and says."""

    def __init__(self, options):
        self.prefix = options.prefix
        self.pinned = options.mode.startswith("2")
        self.server_era = options.server_era
        self.shared = options.shared
        self.heard = []
        self.questions = []
        self.logged = []
        self.answer = types.ElicitResult(action="decline")

    async def sample(self, context, params):
        self.questions.append(params)
        text = f"about {params.messages[0].content.text}"
        return types.CreateMessageResult(role="assistant", model="none", content=types.TextContent(type="text", text=text))

    async def elicit(self, context, params):
        self.questions.append(params)
        return self.answer(params) if callable(self.answer) else self.answer

    async def roots(self, context):
        self.questions.append("roots")
        return types.ListRootsResult(roots=[ROOT])

    async def log(self, params):
        self.logged.append(params.data)

    async def hear(self, message):
        self.heard.append(message)

    @property
    def modern(self):
        return self.client.protocol_version >= "2026-07-28"

    def legacy_throughout(self):
        if self.modern or self.server_era == "modern":
            raise Skipped("not in the eras of client and server")

    def named(self, name):
        return self.prefix + name

    async def call(self, name, arguments=None, **more):
        return await self.client.call_tool(self.named(name), arguments or {}, **more)

    async def said(self, name, arguments=None):
        return (await self.call(name, arguments)).content[0].text

    async def pages(self, fetch, member):
        found, cursor = [], None
        while True:
            page = await (fetch() if cursor is None else fetch(cursor=cursor))
            found += getattr(page, member)
            cursor = page.next_cursor
            if cursor is None:
                return found

    async def tools(self):
        return [tool.name for tool in await self.pages(self.client.list_tools, "tools")]

    async def prompts(self):
        return [prompt.name for prompt in await self.pages(self.client.list_prompts, "prompts")]

    async def resources(self):
        return [str(one.uri) for one in await self.pages(self.client.list_resources, "resources")]

    async def read(self, uri):
        return (await self.client.read_resource(uri)).contents[0]

    async def prompt(self, name, arguments=None):
        return (await self.client.get_prompt(self.named(name), arguments)).messages[0].content

    async def complete(self, ref, name, value, context=None):
        done = await self.client.complete(ref, {"name": name, "value": value}, context)
        return done.completion.values

    async def seen(self, what):
        return json.loads(await self.said("seen")).get(what, 0)

    async def grows(self, what, awaited):
        before = await self.seen(what)
        await awaited

        async def grown():
            return await self.seen(what) > before

        await until(f"{what} is seen", grown)

    async def begun_and_cancelled(self, name, arguments=None):
        """Cancels a call as soon as there is progress."""
        begun = asyncio.Event()

        async def note(done, total, message):
            begun.set()

        running = asyncio.create_task(self.call(name, arguments, progress_callback=note))
        await asyncio.wait_for(begun.wait(), SECONDS)
        running.cancel()
        await asyncio.wait([running])

    async def notice(self, kind, since):
        async def found():
            return next((one for one in self.heard[since:] if isinstance(one, kind)), None)

        return await until(f"{kind.__name__} arrives", found)

    async def told(self, kind, word, change, **wanted):
        """Does `change` while it listens for `wanted`, in the way of its era."""
        if not self.modern:
            since = len(self.heard)
            await change
            await self.notice(kind, since)
            return
        async with self.client.listen(**wanted) as listening:
            await change
            event = await asyncio.wait_for(anext(aiter(listening)), SECONDS)
            check(type(event).__name__ == word, event)


class Reference(Session):
    async def connects(self):
        if self.pinned:
            raise Skipped("a client that was told the version asks for nothing")
        able = self.client.server_capabilities
        check(able.tools and able.prompts and able.resources and able.completions is not None, able)
        check(self.client.instructions)

    async def tools_are_listed_and_called(self):
        check(self.named("test_simple_text") in await self.tools())
        check(await self.said("test_simple_text") == "This is a simple text response for testing.")
        result = await self.call("test_multiple_content_types")
        check([one.type for one in result.content] == ["text", "image", "resource"])
        arguments = {"number": 1.5, "none": None, "text": "héllo ✓ \x00", "big": 12345678901234567890123}
        check(json.loads(await self.said("echo", arguments))["arguments"] == arguments)

    async def tools_with_headers_of_their_own(self):
        check(await self.said("test_headers", {"region": "Zürich ", "level": 3}) == 'region="Zürich " level=3')

    async def failures_in_band_and_errors(self):
        check((await self.call("test_error_handling")).is_error)
        await refused([-32602], self.call("no_such_tool"))
        error = await refused([-32099], self.call("echo_error", {"why": [None]}))
        check(error.data == {"why": [None]}, error.data)

    async def resources_lists_templates_and_contents(self):
        check("test://static-text" in await self.resources())
        templates = await self.pages(self.client.list_resource_templates, "resource_templates")
        check([one.uri_template for one in templates] == ["test://template/{id}/data"])
        check((await self.read("test://static-text")).text == "This is the content of the static text resource.")
        check((await self.read("test://static-binary")).blob.startswith("iVBOR"))
        check(json.loads((await self.read("test://template/7/data")).text)["id"] == "7")
        error = await refused([-32602] if self.modern else [-32002, -32602], self.read("test://none"))
        check(error.data == {"uri": "test://none"}, error.data)

    async def prompts_with_arguments_and_images(self):
        check(self.named("test_simple_prompt") in await self.prompts())
        content = await self.prompt("test_prompt_with_arguments", {"arg1": "one", "arg2": "two"})
        check(content.text == "Prompt with arguments: arg1='one', arg2='two'")
        check((await self.prompt("test_prompt_with_image")).type == "image")

    async def completion_for_prompts_and_templates(self):
        ref = types.PromptReference(type="ref/prompt", name=self.named("test_prompt_with_arguments"))
        check(await self.complete(ref, "arg1", "part") == ["party"])
        ref = types.ResourceTemplateReference(type="ref/resource", uri="test://template/{id}/data")
        check(await self.complete(ref, "id", "12") == ["12", "123"])

    async def logging_as_much_as_was_asked_for(self):
        if not self.modern:
            await self.client.set_logging_level("debug")
        await self.call("test_tool_with_logging")

        async def four():
            return len(self.logged) >= 4

        await until("four messages arrive", four)
        check(self.logged[2] == "Only for who wants everything", self.logged)

    async def sampling_asks_the_model_of_this_client(self):
        check(await self.said("test_sampling", {"prompt": "tunnels"}) == "LLM response: about tunnels")

    async def elicitation_accepted_and_declined(self):
        self.answer = types.ElicitResult(action="accept", content={"username": "ada", "email": "ada@example.com"})
        check("ada@example.com" in await self.said("test_elicitation", {"message": "Who?"}))
        self.answer = types.ElicitResult(action="decline")
        check("decline" in await self.said("test_elicitation", {"message": "Who?"}))
        await self.call("test_elicitation_sep1330_enums")
        check("titledMulti" in self.questions[-1].model_dump_json())

    async def elicitation_of_a_page(self):
        self.answer = lambda asked: types.ElicitResult(action="accept" if asked.mode == "url" else "cancel")
        check(await self.said("ask_url") == 'visit: "accept"')

    async def questions_in_rounds_at_once_and_in_a_prompt(self):
        def answer(asked):
            names = asked.requested_schema["properties"]
            return types.ElicitResult(action="accept", content={name: f"a {name}" for name in names})

        self.answer = answer
        check(await self.said("test_input_required_result_multi_round") == '"a name" likes "a color"')
        three = json.loads(await self.said("test_input_required_result_multiple_inputs"))
        check([three[0]["content"]["name"], three[1]["role"], three[2]["roots"][0]["uri"]] == ["a name", "assistant", str(ROOT.uri)])
        check((await self.prompt("test_input_required_result_prompt")).text == 'Context: "a context"')

    async def questions_of_calls_at_once(self):
        prompts = ["one", "two", "three"]
        calls = [self.said("test_sampling", {"prompt": prompt}) for prompt in prompts]
        for prompt, answer in zip(prompts, await asyncio.gather(*calls, return_exceptions=True)):
            right = answer == f"LLM response: about {prompt}"
            check(right or self.shared and isinstance(answer, MCPError), prompt, answer)

    async def roots_are_listed(self):
        check(str(ROOT.uri) in await self.said("list_roots"))

    async def roots_changes_are_told(self):
        self.legacy_throughout()
        await self.grows("notifications/roots/list_changed", self.client.send_roots_list_changed())

    async def progress_in_order(self):
        progress = []

        async def note(done, total, message):
            progress.append(done)

        await self.call("count", {"steps": 4, "delay_ms": 30}, progress_callback=note)
        check(progress[:4] == [0, 25, 50, 75], progress)

    async def cancellation_stops_the_server(self):
        await self.grows("cancelled sleep", self.begun_and_cancelled("sleep"))

    async def ping_both_ways(self):
        self.legacy_throughout()
        await self.client.send_ping()
        check((await self.said("ask_ping")).startswith("pong"))

    async def subscriptions_are_told(self):
        uri, kind = "test://watched-resource", types.ResourceUpdatedNotification
        if not self.modern:
            since = len(self.heard)
            await self.client.subscribe_resource(uri)
            await self.told(kind, "ResourceUpdated", self.call("update_watched"))
            await self.client.unsubscribe_resource(uri)
            await self.call("update_watched")
            # What is told now comes after what must not have been.
            await self.client.subscribe_resource(uri)

            async def second():
                return sum(isinstance(one, kind) for one in self.heard[since:]) >= 2

            await self.call("update_watched")
            await until("the next update is told", second)
            check(sum(isinstance(one, kind) for one in self.heard[since:]) == 2)
            await self.client.unsubscribe_resource(uri)
            return
        await self.told(kind, "ResourceUpdated", self.call("update_watched"), resource_subscriptions=[uri])

    async def list_changes_are_told_and_show(self):
        for kind, word, fetch, change, entry in [
            (types.ToolListChangedNotification, "tools", self.tools, "tool", self.named("test_dynamic_tool")),
            (types.PromptListChangedNotification, "prompts", self.prompts, "prompt", self.named("test_dynamic_prompt")),
            (types.ResourceListChangedNotification, "resources", self.resources, "resource", "test://dynamic"),
        ]:
            before = entry in await fetch()
            told = f"{word.capitalize()}ListChanged"
            await self.told(kind, told, self.call(f"test_trigger_{change}_change"), **{f"{word}_list_changed": True})

            async def changed():
                return (entry in await fetch()) != before

            await until(f"{entry} comes or goes", changed)


class Everything(Session):
    async def connects(self):
        if self.pinned:
            raise Skipped("a client that was told the version asks for nothing")
        able = self.client.server_capabilities
        check(able.tools and able.prompts and able.resources, able)

    async def tools_are_called(self):
        check(await self.said("echo", {"message": "héllo ✓"}) == "Echo: héllo ✓")
        check("42" in await self.said("get-sum", {"a": 40, "b": 2}))

    async def resources_are_listed_and_read(self):
        check(len(await self.resources()) > 3)
        check("Resource 1" in (await self.read("demo://resource/dynamic/text/1")).text)

    async def prompts_with_arguments(self):
        check((await self.prompt("args-prompt", {"city": "Turin"})).text == "What's weather in Turin?")

    async def completion_with_context(self):
        ref = types.PromptReference(type="ref/prompt", name=self.named("completable-prompt"))
        check(await self.complete(ref, "name", "D", {"department": "Sales"}) == ["David"])

    async def logging_arrives(self):
        if not self.modern:
            await self.client.set_logging_level("debug")

        async def simulated():
            return any("level message" in str(data) or "level-message" in str(data) for data in self.logged)

        await self.call("toggle-simulated-logging")
        try:
            await until("a message arrives", simulated)
        finally:
            await self.call("toggle-simulated-logging")

    async def sampling_asks_the_model_of_this_client(self):
        check("context: tunnels" in await self.said("trigger-sampling-request", {"prompt": "tunnels", "maxTokens": 5}))

    async def elicitation_of_a_form_and_a_page(self):
        self.answer = types.ElicitResult(action="accept", content={"name": "Ada"})
        check("Ada" in (await self.call("trigger-elicitation-request")).model_dump_json())
        self.answer = types.ElicitResult(action="accept")
        check("accept" in (await self.call("trigger-url-elicitation", {"url": "https://example.com/visit"})).model_dump_json())

    async def roots_are_listed(self):
        check(str(ROOT.uri) in (await self.call("get-roots-list")).model_dump_json())

    async def progress_in_order(self):
        progress = []

        async def note(done, total, message):
            progress.append(done)

        await self.call("trigger-long-running-operation", {"duration": 0.3, "steps": 3}, progress_callback=note)
        check(progress[:2] == [1, 2], progress)

    async def cancellation_ends_the_call(self):
        await self.begun_and_cancelled("trigger-long-running-operation", {"duration": 5, "steps": 50})
        check(await self.said("echo", {"message": "on"}) == "Echo: on")

    async def subscriptions_are_told(self):
        uri = "demo://resource/dynamic/text/1"
        if not self.modern:
            await self.client.subscribe_resource(uri)
        toggle = self.call("toggle-subscriber-updates")
        await self.told(types.ResourceUpdatedNotification, "ResourceUpdated", toggle, resource_subscriptions=[uri])
        await self.call("toggle-subscriber-updates")

    async def list_changes_are_told_and_show(self):
        # A name of its own: what another session of a shared server has made is there already, and no change.
        arguments = {"name": f"note-{os.getpid()}.gz", "data": "data:text/plain,hello"}
        change = self.call("gzip-file-as-resource", arguments)
        await self.told(types.ResourceListChangedNotification, "ResourcesListChanged", change, resources_list_changed=True)

        async def listed():
            return any(uri.endswith(arguments["name"]) for uri in await self.resources())

        await until("it is listed", listed)


async def run(session, report):
    counts = {"ok": 0, "not ok": 0, "skipped": 0}
    steps = [(name, step) for name, step in vars(type(session)).items() if asyncio.iscoroutinefunction(step)]
    for name, _ in steps:
        title = name.replace("_", " ")
        try:
            await asyncio.wait_for(getattr(session, name)(), 3 * SECONDS)
            counts["ok"] += 1
            print(f"ok {counts['ok']} - {title}", flush=True)
        except Skipped as why:
            counts["skipped"] += 1
            print(f"skipped - {title}: {why}", flush=True)
        except Exception as error:
            counts["not ok"] += 1
            print(f"not ok - {title}: {type(error).__name__} {' '.join(str(error).split())[:200]}", flush=True)
            if not report:
                break
    print(f"{counts['ok']} passed, {counts['not ok']} failed, {counts['skipped']} skipped", flush=True)
    return counts["not ok"] == 0


async def main():
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["reference", "everything"])
    parser.add_argument("mode")
    parser.add_argument("url", nargs="?")
    parser.add_argument("--token")
    parser.add_argument("--prefix", default="")
    parser.add_argument("--server-era", default="both")
    parser.add_argument("--shared", action="store_true")
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args(sys.argv[1:split])
    command = sys.argv[split + 1 :]
    session = (Reference if options.kind == "reference" else Everything)(options)
    headers = {"authorization": f"Bearer {options.token}"} if options.token else {}
    async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
        if command:
            transport = stdio_client(StdioServerParameters(command=command[0], args=command[1:]))
        else:
            transport = streamable_http_client(options.url, http_client=http)
        client = Client(
            transport,
            mode=options.mode,
            cache=None,
            log_level="debug",
            read_timeout_seconds=SECONDS,
            sampling_callback=session.sample,
            elicitation_callback=session.elicit,
            list_roots_callback=session.roots,
            logging_callback=session.log,
            message_handler=session.hear,
        )
        try:
            async with client:
                session.client = client
                well = await run(session, options.report)
        except BaseException as error:
            if not hasattr(session, "client"):
                print(f"not ok - connects: {type(error).__name__} {' '.join(str(error).split())[:300]}\n0 passed, 1 failed, 0 skipped")
                return False
            raise
    return well


sys.exit(0 if asyncio.run(main()) else 1)
