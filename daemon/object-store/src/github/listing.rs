//! All names of a cache at once, by GitHub's REST API, where a token for it was given: the cache
//! service itself can be asked for one at a time, and only so often.

use std::collections::HashSet;
use std::fmt;

use http::Method;
use serde::Deserialize;
use url::Url;

use super::{Github, blob_prefix};
use crate::error::Error;
use crate::request::Request;

const PER_PAGE: usize = 100;
/// A repository has less than this many entries.
const MAX_PAGES: usize = 1000;

/// Where all names can be asked for.
#[derive(Clone)]
pub struct Listing {
    /// The API's address.
    pub api: String,
    /// The repository, as `owner/name`.
    pub repository: String,
    /// A token for the API.
    pub token: String,
}

impl fmt::Debug for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing").field("repository", &self.repository).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Page {
    total_count: usize,
    actions_caches: Vec<Known>,
}

#[derive(Deserialize)]
struct Known {
    key: String,
}

impl Github {
    /// The names of all blobs; `None` if they cannot be had, and have to be asked for one by one.
    pub(super) async fn list(&self) -> Option<HashSet<String>> {
        let listing = self.0.config.listing.as_ref()?;
        let mut names = HashSet::new();
        for scope in self.0.token.scopes() {
            if let Err(error) = self.list_scope(listing, scope, &mut names).await {
                tracing::warn!(%error, "the entries of a cache cannot be listed");
                return None;
            }
        }
        Some(names)
    }

    async fn list_scope(
        &self,
        listing: &Listing,
        scope: &str,
        names: &mut HashSet<String>,
    ) -> Result<(), Error> {
        let problem = || "it is not an HTTP address".to_owned();
        let base = Url::parse(&listing.api)
            .map_err(|_| Error::Setting { setting: "GITHUB_API_URL", problem: problem() })?;
        for page in 1..=MAX_PAGES {
            let mut url = base.clone();
            if let Ok(mut segments) = url.path_segments_mut() {
                segments.pop_if_empty().push("repos").extend(listing.repository.split('/'));
                segments.extend(["actions", "caches"]);
            }
            url.query_pairs_mut()
                .append_pair("per_page", &PER_PAGE.to_string())
                .append_pair("page", &page.to_string())
                .append_pair("key", &blob_prefix())
                .append_pair("ref", scope);
            let request = Request::new(Method::GET, url)
                .header("accept", "application/vnd.github+json")?
                .header("authorization", &format!("Bearer {}", listing.token))?
                .header("x-github-api-version", "2022-11-28")?
                .patience(self.patience());
            let Page { total_count, actions_caches } = request.json(&self.0.http).await?;
            let is_last = actions_caches.is_empty() || total_count <= page * PER_PAGE;
            names.extend(actions_caches.into_iter().map(|known| known.key));
            if is_last {
                break;
            }
        }
        Ok(())
    }
}
