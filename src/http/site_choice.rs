//! Which of a person's sites a page is about, for pages that show one at a time.

use crate::broker::{Caller, UseCaseError};
use crate::http::Edge;
use crate::model::site::Site;
use crate::store::PairingOfDevice;

/// A site to choose.
#[derive(Debug, Clone)]
pub struct SiteChoice {
    /// Site id.
    pub id: String,
    /// Name.
    pub name: String,
    /// Pairings that wait there.
    pub waiting: usize,
    /// It is the one that the page shows.
    pub is_chosen: bool,
}

/// The sites of a person, and which of them is meant: the one named, or that of the walk, or the first.
pub struct Choice {
    /// By id.
    pub sites: Vec<Site>,
    /// The one that is meant.
    pub chosen: Site,
}

impl Choice {
    /// # Errors
    /// If the person has no site, or not this one.
    pub async fn of(edge: &Edge, caller: &Caller, named: Option<&str>) -> Result<Self, UseCaseError> {
        let sites = edge.broker().sites(caller).await?;
        let chosen = match named.filter(|named| !named.is_empty()) {
            Some(named) => sites.iter().find(|site| site.id == named),
            None => sites.first(),
        };
        let nothing = || UseCaseError::NotFound("there is nothing of this name at your sites".into());
        let chosen = chosen.cloned().ok_or_else(nothing)?;
        Ok(Self { sites, chosen })
    }

    /// To choose from, with what waits at each; empty if there is only one.
    pub fn choices(&self, waiting: &[PairingOfDevice]) -> Vec<SiteChoice> {
        let choice = |site: &Site| SiteChoice {
            id: site.id.clone(),
            name: site.name.clone(),
            waiting: waiting.iter().filter(|found| found.device.facts.site == site.id).count(),
            is_chosen: site.id == self.chosen.id,
        };
        if self.sites.len() > 1 { self.sites.iter().map(choice).collect() } else { Vec::new() }
    }
}
