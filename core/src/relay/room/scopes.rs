//! What a client's token lets it ask of a room. It is judged here, since only the room knows which tool a name means and
//! what that says of itself.

use alloc::format;

use http::HeaderMap;

use super::Room;
use crate::id::ExchangeId;
use crate::mcp::{Era, method};
use crate::oauth::Principal;
use crate::oauth::scopes::Scopes;
use crate::relay::challenge::Challenge;
use crate::relay::named::Meaning;
use crate::relay::permission::{self, Need};
use crate::relay::shard::{Action, Cx};
use crate::relay::{Content, Endpoint, Item, Post, Request, meta, route};
use crate::rpc;

impl Room {
    /// The scopes that the token lacks for a message. Of a batch every request must be allowed: else none is carried out.
    pub(super) fn lacking(&mut self, post: &Post, cx: &Cx<'_>) -> Scopes {
        if permission::is_whole(&post.principal.scopes) {
            return Scopes::default();
        }
        let era = post.speaker.era();
        let mut lacks = |request: &Request| {
            permission::missing(&post.principal.scopes, self.need(&post.endpoint, era, request, cx))
        };
        match &post.content {
            Content::Request(request) => lacks(request).into_iter().collect(),
            Content::Batch(items) => items.iter().filter_map(Item::request).filter_map(lacks).collect(),
            Content::Note(_) => Scopes::default(),
        }
    }

    /// Refuses for missing scopes: the client signs in again for what it has and these (step-up).
    pub(super) fn step_up(
        exchange: ExchangeId,
        principal: &Principal,
        endpoint: &Endpoint,
        (lacking, headers): (&Scopes, HeaderMap),
        cx: &mut Cx<'_>,
    ) {
        tracing::debug!(client = %principal.client, scope = %lacking, "request refused for want of a scope");
        let document = route::endpoint_path(endpoint);
        let challenge = Challenge { public_url: &cx.settings.public_url, document: &document };
        let text = format!("this needs the scope {lacking}: sign in again and allow it");
        let mut reply = challenge.insufficient(&text, &principal.scopes.iter().chain(lacking.iter()).collect());
        reply.headers.extend(headers);
        cx.out.push(Action::Reply { exchange, reply });
    }

    fn need(&mut self, endpoint: &Endpoint, era: Era, request: &Request, cx: &Cx<'_>) -> Need {
        if &*request.method != method::TOOLS_CALL {
            return permission::of_method(&request.method);
        }
        let raw = rpc::object::get(&request.params, "name").unwrap_or_default();
        // A call that names no tool there is comes to none: it is answered with what the lists tell.
        let Some(name) = rpc::string(&raw) else { return permission::READING_TOOL };
        let is_own = *endpoint == Endpoint::All && self.own_tool(era, &name).is_some();
        match endpoint {
            Endpoint::All if name == meta::STATUS => permission::READING_TOOL,
            Endpoint::All if name == meta::RESTART => permission::MANAGES,
            Endpoint::All => match (self.listing(era, cx).resolve(&name), is_own) {
                (Meaning::One(target), _) => {
                    let target = target.clone();
                    let server =
                        self.devices.get(&target.conn).and_then(|device| device.catalog.server(&target.server));
                    permission::of_tool(server.is_some_and(|(_, server)| server.offer(era).is_read_only(&target.name)))
                }
                (Meaning::Unknown(_), true) => permission::of_tool(false),
                (Meaning::Ambiguous(_) | Meaning::Unknown(_), _) => permission::READING_TOOL,
            },
            // A server may have tools that it does not list.
            single => match self.locate(single, cx) {
                Ok((_, _, server)) => permission::of_tool(server.offer(era).is_read_only(&name)),
                Err(_) => permission::READING_TOOL,
            },
        }
    }
}
