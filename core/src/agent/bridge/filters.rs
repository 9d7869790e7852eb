//! Which changes a modern client wants to hear of (2026-07-28, patterns, Subscriptions, Notification Filter).

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::limits;
use crate::mcp::{key, method};
use crate::rpc::object::{self, Object};
use crate::rpc::{self, envelope, quoted};

/// What somebody listens for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::agent) struct Filter {
    pub(in crate::agent) tools: bool,
    pub(in crate::agent) prompts: bool,
    pub(in crate::agent) resources: bool,
    /// The URIs of resources that are watched.
    pub(in crate::agent) uris: BTreeSet<String>,
}

impl Filter {
    /// What the params of `subscriptions/listen` ask for; `None`: they are none, or ask for too much.
    pub(in crate::agent) fn read(params: &Bytes) -> Option<Self> {
        #[derive(Deserialize, Default)]
        #[serde(rename_all = "camelCase", default)]
        struct Notifications {
            tools_list_changed: bool,
            prompts_list_changed: bool,
            resources_list_changed: bool,
            resource_subscriptions: Vec<String>,
        }
        let raw = object::get(params, "notifications").filter(|raw| raw.starts_with(b"{"))?;
        let asked: Notifications = serde_json::from_slice(&raw).ok()?;
        let fits = |uri: &String| uri.len() <= limits::MAX_URI;
        let few = asked.resource_subscriptions.len() <= limits::MAX_LISTENED;
        (few && asked.resource_subscriptions.iter().all(fits)).then(|| Self {
            tools: asked.tools_list_changed,
            prompts: asked.prompts_list_changed,
            resources: asked.resources_list_changed,
            uris: asked.resource_subscriptions.into_iter().collect(),
        })
    }

    /// As much of it as a legacy server with these capabilities tells of.
    pub(in crate::agent) fn within(self, capabilities: Option<&RawValue>) -> Self {
        let raw = capabilities.map(|raw| Bytes::copy_from_slice(raw.get().as_bytes())).unwrap_or_default();
        let says = |of: &str, what: &str| object::get_path(&raw, &[of, what]).as_deref() == Some(b"true");
        Self {
            tools: self.tools && says("tools", "listChanged"),
            prompts: self.prompts && says("prompts", "listChanged"),
            resources: self.resources && says("resources", "listChanged"),
            uris: if says("resources", "subscribe") { self.uris } else { BTreeSet::new() },
        }
    }

    /// As JSON: the member `notifications`.
    pub(in crate::agent) fn to_json(&self) -> String {
        let flags = [
            ("toolsListChanged", self.tools),
            ("promptsListChanged", self.prompts),
            ("resourcesListChanged", self.resources),
        ];
        let mut members: Vec<String> =
            flags.iter().filter(|(_, on)| *on).map(|(name, _)| format!("\"{name}\":true")).collect();
        if !self.uris.is_empty() {
            let uris: Vec<String> = self.uris.iter().map(|uri| quoted(uri)).collect();
            members.push(format!("\"resourceSubscriptions\":[{}]", uris.join(",")));
        }
        format!("{{{}}}", members.join(","))
    }

    /// Whether a notification of the server is among what is listened for.
    pub(in crate::agent) fn wants(&self, method: &str, params: &Bytes) -> bool {
        match method {
            method::TOOLS_CHANGED => self.tools,
            method::PROMPTS_CHANGED => self.prompts,
            method::RESOURCES_CHANGED => self.resources,
            method::RESOURCE_UPDATED => updated(params).is_some_and(|uri| self.uris.contains(&uri)),
            _ => false,
        }
    }

    /// Whether nothing is listened for.
    pub(in crate::agent) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The resource that `notifications/resources/updated` is about.
pub(in crate::agent) fn updated(params: &Bytes) -> Option<String> {
    rpc::string(&object::get(params, "uri")?).map(|text| text.into_owned())
}

/// The acknowledgement that comes first on a subscription. `id` is raw.
pub(in crate::agent) fn acknowledged(id: &[u8], filter: &Filter) -> Bytes {
    let params = format!("{{\"notifications\":{}}}", filter.to_json());
    let params = tagged(&Bytes::from(params), id).unwrap_or_default();
    envelope::notification(method::SUBSCRIPTIONS_ACKNOWLEDGED, &params)
}

/// The result that ends a subscription in peace. `id` is raw.
pub(in crate::agent) fn ended(id: &[u8]) -> Bytes {
    tagged(&Bytes::from_static(b"{\"resultType\":\"complete\"}"), id).unwrap_or_default()
}

/// A notification with the id of the subscription that it comes on.
pub(in crate::agent) fn on_subscription(json: &Bytes, id: &[u8]) -> Option<Bytes> {
    let message = Object::parse(json).ok()?;
    let params = tagged(&message.get("params").unwrap_or_default(), id)?;
    Some(message.set(&[("params", &params)]))
}

/// The id in a message's `_meta` that says which subscription it is of.
pub(in crate::agent) fn subscription(params: &Bytes) -> Option<Bytes> {
    object::get_path(params, &["_meta", key::SUBSCRIPTION_ID])
}

/// A notification without that id, which means something to the one who opened the subscription alone. All else stays as
/// it is, but a `_meta` that says nothing else.
pub(in crate::agent) fn untagged(json: &Bytes) -> Bytes {
    let rest = object::remove_path(json, &["params", "_meta", key::SUBSCRIPTION_ID]);
    let meta = object::get_path(&rest, &["params", "_meta"]).and_then(|raw| Object::parse(&raw).ok());
    match meta {
        Some(meta) if meta.members().next().is_none() => object::remove_path(&rest, &["params", "_meta"]),
        Some(_) | None => rest,
    }
}

/// The object with that id in its `_meta`.
pub(in crate::agent) fn tagged(params: &Bytes, id: &[u8]) -> Option<Bytes> {
    object::set_path(params, &["_meta", key::SUBSCRIPTION_ID], id).ok()
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn filter(notifications: &str) -> Option<Filter> {
        Filter::read(&Bytes::from(format!(r#"{{"notifications":{notifications}}}"#)))
    }

    #[test]
    fn filter_is_read_and_written() {
        for text in [
            "{}",
            r#"{"toolsListChanged":true}"#,
            r#"{"toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":true,"resourceSubscriptions":["a:\"b\"","c:d"]}"#,
        ] {
            assert_eq!(filter(text).unwrap().to_json(), text);
        }
        assert!(filter(r#"{"toolsListChanged":false,"unknown":1}"#).unwrap().is_empty());
        for text in ["null", "[]", "3", r#"{"resourceSubscriptions":[3]}"#] {
            assert_eq!(filter(text), None, "{text}");
        }
        assert_eq!(Filter::read(&Bytes::from_static(b"{}")), None);
    }

    #[test]
    fn filter_is_bounded() {
        let uris =
            |count: usize| json!({"resourceSubscriptions": (0..count).map(|n| format!("a:{n}")).collect::<Vec<_>>()});
        assert!(filter(&uris(limits::MAX_LISTENED).to_string()).is_some());
        assert!(filter(&uris(limits::MAX_LISTENED + 1).to_string()).is_none());
        let long = |length: usize| json!({"resourceSubscriptions": ["a".repeat(length)]}).to_string();
        assert!(filter(&long(limits::MAX_URI)).is_some());
        assert!(filter(&long(limits::MAX_URI + 1)).is_none());
    }

    #[test]
    fn only_what_a_server_tells_of_is_promised() {
        let all = r#"{"toolsListChanged":true,"promptsListChanged":true,"resourcesListChanged":true,"resourceSubscriptions":["a:b"]}"#;
        for (capabilities, expected) in [
            ("{}", "{}"),
            (r#"{"tools":{"listChanged":true},"resources":{}}"#, r#"{"toolsListChanged":true}"#),
            (
                r#"{"resources":{"subscribe":true},"prompts":{"listChanged":false}}"#,
                r#"{"resourceSubscriptions":["a:b"]}"#,
            ),
            (
                r#"{"tools":{"listChanged":true},"prompts":{"listChanged":true},"resources":{"subscribe":true,"listChanged":true}}"#,
                all,
            ),
        ] {
            let capabilities: &RawValue = serde_json::from_str(capabilities).unwrap();
            assert_eq!(filter(all).unwrap().within(Some(capabilities)).to_json(), expected);
        }
    }

    #[test]
    fn only_what_is_listened_for_is_wanted() {
        let some = filter(r#"{"toolsListChanged":true,"resourceSubscriptions":["a:b"]}"#).unwrap();
        for (method, params, expected) in [
            ("notifications/tools/list_changed", "", true),
            ("notifications/prompts/list_changed", "", false),
            ("notifications/resources/list_changed", "", false),
            ("notifications/resources/updated", r#"{"uri":"a:b"}"#, true),
            ("notifications/resources/updated", r#"{"uri":"a:c"}"#, false),
            ("notifications/resources/updated", "{}", false),
            ("notifications/message", r#"{"uri":"a:b"}"#, false),
        ] {
            assert_eq!(some.wants(method, &Bytes::from_static(params.as_bytes())), expected, "{method} {params}");
        }
    }

    #[test]
    fn id_of_a_subscription_is_taken_out_and_nothing_else() {
        for (params, expected) in [
            (
                r#"{"uri":"a:b", "_meta":{ "x/y":1.50,"io.modelcontextprotocol/subscriptionId":7, "z":null}, "n":1e400}"#,
                r#"{"uri":"a:b", "_meta":{ "x/y":1.50, "z":null}, "n":1e400}"#,
            ),
            (r#"{"_meta":{"io.modelcontextprotocol/subscriptionId":"7"},"uri":"a:b"}"#, r#"{"uri":"a:b"}"#),
            (r#"{"uri":"a:b","_meta":{"x":{}}}"#, r#"{"uri":"a:b","_meta":{"x":{}}}"#),
            (r#"{"uri":"a:b"}"#, r#"{"uri":"a:b"}"#),
        ] {
            let json = |params: &str| Bytes::from(format!(r#"{{"method":"x", "params":{params}}}"#));
            assert_eq!(untagged(&json(params)), json(expected));
        }
    }

    #[test]
    fn everything_on_a_subscription_carries_its_id() {
        let read = |json: &Bytes| serde_json::from_slice::<Value>(json).unwrap();
        let some = filter(r#"{"toolsListChanged":true}"#).unwrap();
        let ack = read(&acknowledged(b"\"1\"", &some));
        assert_eq!(ack["method"], "notifications/subscriptions/acknowledged");
        assert_eq!(ack["params"]["notifications"], json!({"toolsListChanged": true}));
        assert_eq!(ack["params"]["_meta"][key::SUBSCRIPTION_ID], "1");
        assert_eq!(read(&ended(b"7"))["_meta"][key::SUBSCRIPTION_ID], 7);
        let bare = Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#);
        assert_eq!(read(&on_subscription(&bare, b"7").unwrap())["params"]["_meta"][key::SUBSCRIPTION_ID], 7);
        let full = Bytes::from_static(br#"{"method":"x","params":{"n":1e400,"_meta":{"x":null}}}"#);
        let text = on_subscription(&full, b"7").unwrap();
        assert_eq!(
            text,
            Bytes::from_static(
                br#"{"method":"x","params":{"n":1e400,"_meta":{"x":null,"io.modelcontextprotocol/subscriptionId":7}}}"#
            )
        );
        assert_eq!(subscription(&object::get(&text, "params").unwrap()), Some(Bytes::from_static(b"7")));
    }

    proptest! {
        #[test]
        fn filters_read_back_and_a_legacy_server_narrows_them(
            flags: [bool; 3], uris in prop::collection::btree_set(any::<String>(), 0..4), says: [bool; 4]
        ) {
            let [tools, prompts, resources] = flags;
            let asked = Filter { tools, prompts, resources, uris };
            prop_assert_eq!(filter(&asked.to_json()), Some(asked.clone()));
            prop_assert_eq!(asked.is_empty(), asked.to_json() == "{}");
            let capabilities = json!({
                "tools": {"listChanged": says[0]},
                "prompts": {"listChanged": says[1]},
                "resources": {"listChanged": says[2], "subscribe": says[3]},
            }).to_string();
            let capabilities: &RawValue = serde_json::from_str(&capabilities).expect("JSON");
            let within = asked.clone().within(Some(capabilities));
            prop_assert_eq!((within.tools, within.prompts, within.resources), (tools && says[0], prompts && says[1], resources && says[2]));
            prop_assert_eq!(&within.uris, if says[3] { &asked.uris } else { const { &BTreeSet::new() } });
            prop_assert_eq!(within.clone().within(Some(capabilities)), within, "once is enough");
            prop_assert!(asked.within(None).is_empty());
        }

        /// What goes onto a subscription comes off it as it was.
        #[test]
        fn id_of_a_subscription_goes_on_and_comes_off(uri: String, number: u32, more: bool) {
            let meta = if more { r#","_meta":{ "x":1.50 }"# } else { "" };
            let plain = Bytes::from(format!(r#"{{"method":"x", "params":{{"uri":{}{meta}}}}}"#, quoted(&uri)));
            let id = number.to_string();
            let on = on_subscription(&plain, id.as_bytes()).expect("an object");
            prop_assert_eq!(subscription(&object::get(&on, "params").expect("params")), Some(Bytes::from(id)));
            prop_assert_eq!(updated(&object::get(&on, "params").expect("params")), Some(uri));
            prop_assert_eq!(untagged(&on), plain.clone());
            prop_assert_eq!(untagged(&plain), plain);
        }
    }
}
