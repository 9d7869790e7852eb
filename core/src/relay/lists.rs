//! The lists of an endpoint as a client knows them, and which of them are news.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::{BufMut, Bytes, BytesMut};

use crate::mcp::catalog::Announced;
use crate::mcp::method;
use crate::rpc::quoted;

/// The raw results of an endpoint's lists. `None`: nothing of the kind is offered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Lists {
    pub(super) tools: Bytes,
    pub(super) prompts: Option<Bytes>,
    pub(super) resources: Option<Resources>,
    /// How often their server said that they changed: whoever is told what it says is told also of lists that turned out
    /// to be the same. None on the endpoint of all servers.
    pub(super) announced: Announced,
}

/// The results of `resources/list` and `resources/templates/list`, which change with one notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resources {
    pub(super) resources: Bytes,
    pub(super) templates: Bytes,
}

impl Lists {
    /// The notifications for whoever has seen `seen`.
    pub(super) fn news(&self, seen: &Self) -> Vec<&'static str> {
        // An agent that was started anew counts anew: less is no news.
        let (now, then) = (self.announced, seen.announced);
        let changed = [
            (self.tools != seen.tools || now.tools > then.tools, method::TOOLS_CHANGED),
            (self.prompts != seen.prompts || now.prompts > then.prompts, method::PROMPTS_CHANGED),
            (self.resources != seen.resources || now.resources > then.resources, method::RESOURCES_CHANGED),
        ];
        changed.into_iter().filter(|(is_news, _)| *is_news).map(|(_, method)| method).collect()
    }

    /// Whether there is the same in them, whatever their server said.
    pub(super) fn are_like(&self, other: &Self) -> bool {
        (&self.tools, &self.prompts, &self.resources) == (&other.tools, &other.prompts, &other.resources)
    }

    /// The notifications for whoever may have seen anything.
    pub(super) fn all(&self) -> Vec<&'static str> {
        let offered = [
            (true, method::TOOLS_CHANGED),
            (self.prompts.is_some(), method::PROMPTS_CHANGED),
            (self.resources.is_some(), method::RESOURCES_CHANGED),
        ];
        offered.into_iter().filter(|(is_offered, _)| *is_offered).map(|(_, method)| method).collect()
    }
}

/// The raw result of a list: one page with these objects.
pub(super) fn page(member: &str, items: &[impl AsRef<[u8]>]) -> Bytes {
    let head = head(member);
    let length: usize = items.iter().map(|item| item.as_ref().len()).sum();
    // No more than it takes: it is kept for as long as its device is there.
    let mut out = BytesMut::with_capacity(head.len() + length + items.len().saturating_sub(1) + TAIL.len());
    out.put_slice(head.as_bytes());
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.put_u8(b',');
        }
        out.put_slice(item.as_ref());
    }
    out.put_slice(TAIL);
    out.freeze()
}

/// The same; from then on the objects are parts of the page.
pub(super) fn page_of<'a>(member: &str, items: impl Iterator<Item = &'a mut Bytes>) -> Bytes {
    let mut items: Vec<&mut Bytes> = items.collect();
    let page = page(member, &items);
    let mut at = head(member).len();
    for item in &mut items {
        let end = at + item.len();
        **item = page.slice(at..end);
        at = end + 1;
    }
    page
}

fn head(member: &str) -> String {
    format!("{{{}:[", quoted(member))
}

const TAIL: &[u8] = b"]}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_is_one_piece_of_memory_and_its_objects_are_parts_of_it() {
        for texts in [&[][..], &["{}"], &[r#"{"name":"a"}"#, "{}", r#"{"name":"b,]"}"#]] {
            let mut items: Vec<Bytes> = texts.iter().map(|text| Bytes::from(String::from(*text))).collect();
            let page = page_of("tools", items.iter_mut());
            assert_eq!(page, format!(r#"{{"tools":[{}]}}"#, texts.join(",")));
            assert_eq!(items, texts, "they say what they said");
            let within = page.as_ptr_range();
            assert!(items.iter().all(|item| within.contains(&item.as_ptr())), "and have no memory of their own");
        }
    }

    #[test]
    fn list_that_was_announced_more_often_is_news_and_one_that_was_less_is_not() {
        let announced = |announced| Lists { tools: Bytes::new(), prompts: None, resources: None, announced };
        let counted = |tools, prompts, resources| announced(Announced { tools, prompts, resources });
        let seen = counted(5, 5, 5);
        assert_eq!(counted(4, 4, 4).news(&seen), [""; 0]);
        assert_eq!(counted(5, 5, 5).news(&seen), [""; 0]);
        for (lists, news) in [
            (counted(6, 5, 4), method::TOOLS_CHANGED),
            (counted(4, 6, 5), method::PROMPTS_CHANGED),
            (counted(5, 4, 6), method::RESOURCES_CHANGED),
        ] {
            assert_eq!(lists.news(&seen), [news]);
        }
    }
}
