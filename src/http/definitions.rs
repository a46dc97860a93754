//! Definitions: which versions there are, and taking what the folder holds into force.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};

use super::api::{self, ApiState, Pairs};
use super::error::ApiError;
use crate::catalog::Change;
use crate::definitions::{self, Loaded};
use crate::reload;
use crate::store::{Reader, StoreError, Tally};

/// All versions of all sagas that the store knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Versions {
    /// By saga, the highest version first.
    pub items: Vec<VersionView>,
}

/// A version of a saga, and how many instances it still has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VersionView {
    /// Name of the saga.
    pub saga: String,
    /// Version of the definition.
    pub version: u32,
    /// Hash of the definition's content.
    pub hash: String,
    /// Whether new instances start with it.
    pub in_force: bool,
    /// Its file, where it had one when the folder was last taken into force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// How many instances go forward with it.
    pub running: usize,
    /// How many go back.
    pub compensating: usize,
    /// How many wait for a person.
    pub parked: usize,
}

/// Has the folder taken into force, and answers what has changed once that is durable.
pub(super) async fn reload(
    State(state): State<ApiState>,
    headers: HeaderMap,
) -> Result<Json<Change>, ApiError> {
    api::not_from_a_page(&headers)?;
    Ok(Json(reload::reload(&state.folder, state.store.reloads()).await?))
}

/// Tells all versions. The cost is that of [`Reader::tallies`].
pub(super) async fn versions(
    State(state): State<ApiState>,
    pairs: Pairs,
) -> Result<Json<Versions>, ApiError> {
    api::parameters(pairs)?.finish()?;
    let adopted = state.folder.adopted();
    state.store.read(move |reader| Versions::read(reader, &adopted)).await.map(Json)
}

impl Versions {
    fn read(reader: &Reader, adopted: &[Loaded]) -> Result<Self, StoreError> {
        let mut tallies = reader.tallies()?;
        let files: BTreeMap<_, _> = adopted.iter().map(|one| (&one.plan.hash, &one.file)).collect();
        let in_force: Vec<_> = definitions::in_force(adopted).iter().map(|one| &one.plan.hash).collect();
        let view = |(saga, version, hash): (String, u32, String)| {
            let Tally { running, compensating, parked } =
                tallies.remove(&(saga.clone(), version)).unwrap_or_default();
            let (in_force, file) = (in_force.contains(&&hash), files.get(&hash).map(|file| (*file).clone()));
            VersionView { saga, version, hash, in_force, file, running, compensating, parked }
        };
        let mut items: Vec<_> = reader.versions()?.into_iter().map(view).collect();
        items.sort_by(|a, b| (&a.saga, b.version).cmp(&(&b.saga, a.version)));
        Ok(Self { items })
    }
}
