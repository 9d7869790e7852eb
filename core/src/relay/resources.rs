//! The resources and templates of all of a user's devices: under which URIs they are shown, and whose a URI is.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;

use super::catalog::{Dropped, MAX_DROPPED, printable};
use super::items::{Item, Kind};
use super::listing::Source;
use super::lists;
use super::namespace;
use super::offer::Offer;
use super::template::Pattern;
use crate::id::ConnId;
use crate::limits;
use crate::mcp::Era;
use crate::names;
use crate::rpc::object::Object;
use crate::rpc::quoted;

/// What `/mcp` shows of resources, and whose each URI is.
#[derive(Debug)]
pub(super) struct Resources {
    /// The raw results of both lists.
    pub(super) bodies: lists::Resources,
    /// All servers.
    spots: Vec<Spot>,
    /// Which of them list a resource, by its URI there.
    resources: BTreeMap<Arc<str>, Vec<usize>>,
    /// Which of them list a template, by its text there.
    templates: BTreeMap<Arc<str>, Vec<usize>>,
    /// What no room was left for.
    pub(super) dropped: Vec<Dropped>,
    patterns: Vec<(usize, Pattern)>,
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) conn: ConnId,
    pub(super) server: Arc<str>,
    /// The labels of its device and its own.
    labels: (String, String),
    has_resources: bool,
}

impl Spot {
    /// The labels of its device and its own.
    pub(super) fn labels(&self) -> &(String, String) {
        &self.labels
    }
}

/// Whose a URI is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Owner<'a> {
    /// That server's, which knows it under this URI.
    One(&'a Spot, &'a str),
    /// It may be several servers': under these it is one's.
    Ambiguous(Vec<String>),
    /// Nobody's that is known; the servers that have resources.
    Unknown(Vec<&'a str>),
}

impl Resources {
    /// Those of `sources`, which come in a stable order, for clients of that era.
    pub(super) fn new(sources: &[Source<'_>], era: Era) -> Self {
        let mut all = Self {
            bodies: lists::Resources { resources: Bytes::new(), templates: Bytes::new() },
            spots: Vec::new(),
            resources: BTreeMap::new(),
            templates: BTreeMap::new(),
            dropped: Vec::new(),
            patterns: Vec::new(),
        };
        let (mut resources, mut templates) = (Vec::new(), Vec::new());
        for source in sources {
            let device = names::label(source.device.as_str());
            for (name, server) in source.catalog.servers() {
                let (at, offer) = (all.spots.len(), server.offer(era));
                all.spots.push(Spot {
                    conn: source.conn,
                    server: name.clone(),
                    labels: (device.clone(), names::label(name)),
                    has_resources: offer.has_resources(),
                });
                all.admit(Kind::Resource, at, offer, &mut resources);
                all.admit(Kind::Template, at, offer, &mut templates);
            }
        }
        let patterns = templates.iter().filter_map(|(at, item)| Some((*at, Pattern::parse(&item.key)?)));
        all.patterns = patterns.collect();
        all.bodies = lists::Resources {
            resources: all.page(Kind::Resource, &resources),
            templates: all.page(Kind::Template, &templates),
        };
        all
    }

    /// Whose `uri` is. One that is listed is who lists it; else one that a template covers, or that only one server can
    /// have. One in the namespace of a server is that server's in any case.
    pub(super) fn owner<'a>(&'a self, uri: &'a str) -> Owner<'a> {
        if let Some((spot, own)) = self.within(uri) {
            return Owner::One(spot, own);
        }
        if let Some(spots) = self.resources.get(uri) {
            return self.among(spots, uri);
        }
        let mut covering: Vec<usize> =
            self.patterns.iter().filter(|(_, pattern)| pattern.matches(uri)).map(|(at, _)| *at).collect();
        covering.dedup();
        if !covering.is_empty() {
            return self.among(&covering, uri);
        }
        self.only(uri)
    }

    /// Whose template `text` is, or whose resource, if it is a URI: what a completion refers to.
    pub(super) fn owner_of_template<'a>(&'a self, text: &'a str) -> Owner<'a> {
        match (self.within(text), self.templates.get(text)) {
            (None, Some(spots)) => self.among(spots, text),
            _ => self.owner(text),
        }
    }

    /// How the lists show a server's own URI.
    pub(super) fn shown(&self, spot: &Spot, uri: &str) -> String {
        let at = self.spots.iter().position(|one| one == spot);
        at.map_or_else(|| uri.to_string(), |at| self.spelled(&self.resources, at, uri))
    }

    /// The server of that name on a connection.
    pub(super) fn spot_of(&self, conn: ConnId, server: &str) -> Option<&Spot> {
        self.spots.iter().find(|spot| spot.conn == conn && *spot.server == *server)
    }

    /// The server with these labels.
    pub(super) fn spot(&self, labels: &(String, String)) -> Option<&Spot> {
        self.spots.iter().find(|spot| spot.labels == *labels)
    }

    /// Takes a server's entries in, as far as there is room.
    fn admit<'a>(&mut self, kind: Kind, at: usize, offer: &'a Offer, admitted: &mut Vec<(usize, &'a Item)>) {
        let (items, owners) = match kind {
            Kind::Template => (&offer.templates, &mut self.templates),
            Kind::Resource | Kind::Prompt => (&offer.resources, &mut self.resources),
        };
        let mut length: usize = admitted.iter().map(|(_, item)| item.json.len()).sum();
        for item in items {
            length = length.saturating_add(item.json.len());
            if admitted.len() < kind.most() && length <= limits::MAX_CATALOG {
                owners.entry(item.key.clone()).or_default().push(at);
                admitted.push((at, item));
            } else if self.dropped.len() < MAX_DROPPED {
                let name = format!("{}{}", kind.noun(), printable(&item.key, limits::MAX_LISTED_NAME));
                self.dropped.push(Dropped { name, why: "all devices together list too much" });
            }
        }
    }

    fn page(&self, kind: Kind, items: &[(usize, &Item)]) -> Bytes {
        let owners = match kind {
            Kind::Template => &self.templates,
            Kind::Resource | Kind::Prompt => &self.resources,
        };
        let shown = |(at, item): &(usize, &Item)| match self.spelled(owners, *at, &item.key) {
            same if same == *item.key => item.json.clone(),
            other => Object::parse(&item.json)
                .expect("what is listed was checked to be an object")
                .replace(&[(kind.key(), quoted(&other).as_bytes())]),
        };
        lists::page(kind.member(), &items.iter().map(shown).collect::<Vec<_>>())
    }

    /// How a server's URI is shown: as it is, unless another server has it too, or it could be taken for another's.
    fn spelled(&self, owners: &BTreeMap<Arc<str>, Vec<usize>>, at: usize, uri: &str) -> String {
        let is_shared = owners.get(uri).is_some_and(|spots| spots.len() > 1);
        if is_shared || namespace::is_within(uri) {
            self.namespaced(at, uri).unwrap_or_default()
        } else {
            uri.to_string()
        }
    }

    fn namespaced(&self, at: usize, uri: &str) -> Option<String> {
        let (device, server) = &self.spots.get(at)?.labels;
        Some(namespace::within(device, server, uri))
    }

    /// The server whose namespace a URI is in, and its own URI.
    fn within<'a>(&'a self, uri: &'a str) -> Option<(&'a Spot, &'a str)> {
        let (device, server, own) = namespace::split(uri)?;
        let spot = self.spots.iter().find(|spot| spot.labels.0 == device && spot.labels.1 == server)?;
        Some((spot, own))
    }

    fn among<'a>(&'a self, spots: &[usize], uri: &'a str) -> Owner<'a> {
        match spots {
            [at] => self.spots.get(*at).map_or(Owner::Unknown(Vec::new()), |spot| Owner::One(spot, uri)),
            several => {
                Owner::Ambiguous(several.iter().take(MAX_CHOICES).filter_map(|at| self.namespaced(*at, uri)).collect())
            }
        }
    }

    /// What is in no list can only be the one server's that has any.
    fn only<'a>(&'a self, uri: &'a str) -> Owner<'a> {
        let having: Vec<&Spot> = self.spots.iter().filter(|spot| spot.has_resources).collect();
        match having.as_slice() {
            [spot] if !namespace::is_within(uri) => Owner::One(spot, uri),
            several => Owner::Unknown(several.iter().take(MAX_CHOICES).map(|spot| &*spot.server).collect()),
        }
    }
}

/// How many servers an error names.
const MAX_CHOICES: usize = 8;
