//! Everything that all of a user's devices offer, as `/mcp` shows it to the clients of one era.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::catalog::{Catalog, Dropped};
use super::lists::Lists;
use super::meta;
use super::named::{Meaning, Named, Which};
use super::offer::Offer;
use super::resources::Resources;
use crate::config::Naming;
use crate::id::{ConnId, DeviceName};
use crate::limits;
use crate::mcp::Era;
use crate::mcp::catalog::Announced;

/// The lists of `/mcp`, and the meaning of every name and URI in them. Rebuilt whole after a change.
#[derive(Debug)]
pub(super) struct Listing {
    /// The raw results.
    pub(super) lists: Lists,
    tools: Named,
    pub(super) prompts: Named,
    pub(super) resources: Resources,
}

/// A device, as far as what it offers goes.
pub(super) struct Source<'a> {
    pub(super) conn: ConnId,
    pub(super) device: &'a DeviceName,
    pub(super) catalog: &'a Catalog,
}

impl Listing {
    /// The listing of `sources`, which come in a stable order, for clients of that era.
    pub(super) fn new(sources: &[Source<'_>], era: Era, naming: Naming) -> Self {
        let tools = Named::new(sources, era, naming, &TOOLS, meta::tools());
        let prompts = Named::new(sources, era, naming, &PROMPTS, Vec::new());
        let resources = Resources::new(sources, era);
        let any = |has: fn(&Offer) -> bool| {
            sources.iter().flat_map(|source| source.catalog.servers()).any(|(_, server)| has(server.offer(era)))
        };
        let lists = Lists {
            tools: tools.body.clone(),
            prompts: any(Offer::has_prompts).then(|| prompts.body.clone()),
            resources: any(Offer::has_resources).then(|| resources.bodies.clone()),
            announced: Announced::default(),
        };
        Self { lists, tools, prompts, resources }
    }

    /// What the name of a tool means.
    pub(super) fn resolve(&self, name: &str) -> Meaning<'_> {
        self.tools.resolve(name)
    }

    /// The listed names of each server's tools.
    pub(super) fn names_by_server(&self) -> BTreeMap<(ConnId, &str), Vec<&str>> {
        self.tools.names_by_server()
    }

    /// What no name or room was left for.
    pub(super) fn dropped(&self) -> impl Iterator<Item = &Dropped> {
        self.tools.dropped.iter().chain(&self.prompts.dropped).chain(&self.resources.dropped)
    }
}

const TOOLS: Which = Which {
    member: "tools",
    noun: "",
    of: |offer| offer.tools.iter().map(|tool| (&tool.name, &tool.json)).collect(),
    reserved: &meta::NAMES,
    most: limits::MAX_TOOLS,
};

const PROMPTS: Which = Which {
    member: "prompts",
    noun: "prompt ",
    of: |offer| offer.prompts.iter().map(|prompt| (&prompt.key, &prompt.json)).collect(),
    reserved: &[],
    most: limits::MAX_PROMPTS,
};
