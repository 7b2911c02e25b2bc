//! What a registry has about a manifest: signatures and the like (distribution spec, "Listing
//! Referrers").

use http::Method;
use oci_spec::image::{Descriptor, Digest};
use serde::Deserialize;

use crate::client::Client;
use crate::endpoint::Endpoint;
use crate::error::{Error, Malformed, shown};
use crate::manifest::read_manifest;
use crate::media;
use crate::purpose::Purpose;
use crate::reference::ImageRef;
use crate::request::Request;
use crate::retry::Retries;

/// An index, as far as it is about referrers.
#[derive(Deserialize)]
struct Listed {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

impl Client {
    /// The manifests that are about `digest` in the repository of `image`.
    ///
    /// A registry that does not list them may have an index of them under a tag that is made of the
    /// digest; with neither there are none.
    ///
    /// # Errors
    /// [`Error::Malformed`] if the answer is no index.
    pub async fn referrers(
        &self,
        image: &ImageRef,
        digest: &Digest,
    ) -> Result<Vec<Descriptor>, Error> {
        let purpose = Purpose::pull(image, format!("referrers of {}@{digest}", image.name()));
        let tag = format!("manifests/{}", digest.to_string().replace(':', "-"));
        for path in [format!("referrers/{digest}"), tag] {
            match self.get_index(image, &purpose, &path).await {
                Ok(manifests) => return Ok(manifests),
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Vec::new())
    }

    async fn get_index(
        &self,
        image: &ImageRef,
        purpose: &Purpose,
        path: &str,
    ) -> Result<Vec<Descriptor>, Error> {
        let mut turns = self.pull_turns(image)?;
        loop {
            let (endpoint, retries) = (turns.endpoint(), turns.retries());
            match self.get_index_at(endpoint, image, purpose, path, retries).await {
                Ok(manifests) => return Ok(manifests),
                Err(error) => turns.pass(error)?,
            }
        }
    }

    async fn get_index_at(
        &self,
        endpoint: &Endpoint,
        image: &ImageRef,
        purpose: &Purpose,
        path: &str,
        retries: Retries,
    ) -> Result<Vec<Descriptor>, Error> {
        let url = endpoint.url(image.repository(), path)?;
        let request = Request::new(purpose, Method::GET, url).accept(media::ACCEPT_MANIFESTS);
        let response = self.send_checked(endpoint, &request, retries).await?;
        let url = shown(response.url());
        let index = read_manifest(response, purpose).await?;
        let listed: Result<Listed, _> = serde_json::from_slice(&index);
        Ok(listed.map_err(|_| Error::Malformed { url, problem: Malformed::Index })?.manifests)
    }
}
