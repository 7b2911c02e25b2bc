//! Resolving references and reading manifests.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{Method, StatusCode};
use oci_spec::image::{Descriptor, Digest, MediaType};
use reqwest::Response;
use serde::Deserialize;

use crate::client::Client;
use crate::digest::{sha256, verify};
use crate::endpoint::Endpoint;
use crate::error::{Error, Malformed, shown};
use crate::media;
use crate::purpose::Purpose;
use crate::reference::ImageRef;
use crate::request::Request;
use crate::retry::Retries;
use crate::transport::read_limited;

/// The largest manifest that is read, in bytes; what is larger belongs into blobs.
pub const MAX_MANIFEST_SIZE: u64 = 4 * 1024 * 1024;

impl Client {
    /// What `image` names, with one request that fetches it.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the registry does not know the repository, tag or digest, or
    /// [`Error::Unauthorized`] if it does not tell.
    pub async fn resolve(&self, image: &ImageRef) -> Result<(Descriptor, Bytes), Error> {
        let purpose = Purpose::pull(image, image.to_string());
        let mut turns = self.pull_turns(image)?;
        loop {
            let (endpoint, retries) = (turns.endpoint(), turns.retries());
            match self.get_resolved(endpoint, image, &purpose, retries).await {
                Ok(found) => return Ok(found),
                Err(error) => turns.pass(error)?,
            }
        }
    }

    /// What `image` names, without fetching it (which registries count against their limits).
    ///
    /// The digest is the registry's word until [`Client::manifest`] has checked it.
    pub async fn resolve_descriptor(&self, image: &ImageRef) -> Result<Descriptor, Error> {
        let purpose = Purpose::pull(image, image.to_string());
        let mut turns = self.pull_turns(image)?;
        loop {
            let (endpoint, retries) = (turns.endpoint(), turns.retries());
            match self.head_resolved(endpoint, image, &purpose, retries).await {
                Ok(found) => return Ok(found),
                Err(error) => turns.pass(error)?,
            }
        }
    }

    /// The manifest or index that `descriptor` names in the repository of `image`; its digest and
    /// size are checked.
    pub async fn manifest(
        &self,
        image: &ImageRef,
        descriptor: &Descriptor,
    ) -> Result<Bytes, Error> {
        let subject = format!("{}@{}", image.name(), descriptor.digest());
        if descriptor.size() > MAX_MANIFEST_SIZE {
            return Err(Error::TooLarge { subject, limit: MAX_MANIFEST_SIZE });
        }
        let purpose = Purpose::pull(image, subject);
        let mut turns = self.pull_turns(image)?;
        loop {
            let (endpoint, retries) = (turns.endpoint(), turns.retries());
            match self.get_described(endpoint, image, &purpose, descriptor, retries).await {
                Ok(content) => return Ok(content),
                Err(error) => turns.pass(error)?,
            }
        }
    }

    async fn get_described(
        &self,
        endpoint: &Endpoint,
        image: &ImageRef,
        purpose: &Purpose,
        descriptor: &Descriptor,
        retries: Retries,
    ) -> Result<Bytes, Error> {
        let digest = descriptor.digest();
        let url = endpoint.url(image.repository(), &format!("manifests/{digest}"))?;
        let request = Request::new(purpose, Method::GET, url)
            .accept(&format!("{}, */*", descriptor.media_type()));
        let response = self.send_checked(endpoint, &request, retries).await?;
        let content = read_manifest(response, purpose).await?;
        verify(&purpose.subject, digest, &content)?;
        if content.len() as u64 != descriptor.size() {
            return Err(Error::SizeMismatch {
                subject: purpose.subject.clone(),
                expected: descriptor.size(),
                actual: content.len() as u64,
            });
        }
        Ok(content)
    }

    async fn head_resolved(
        &self,
        endpoint: &Endpoint,
        image: &ImageRef,
        purpose: &Purpose,
        retries: Retries,
    ) -> Result<Descriptor, Error> {
        let url = endpoint.url(image.repository(), &format!("manifests/{}", image.object()))?;
        let request = Request::new(purpose, Method::HEAD, url).accept(media::ACCEPT_MANIFESTS);
        let response = self.send(endpoint, &request, retries).await?;
        match response.status() {
            status if status.is_success() => {
                if let Some(found) = described(&response, image, purpose)? {
                    return Ok(found);
                }
            }
            StatusCode::NOT_FOUND => return Err(purpose.not_found()),
            // Other answers to HEAD cannot say why; some registries do not have it at all.
            _ => {}
        }
        Ok(self.get_resolved(endpoint, image, purpose, Retries::none()).await?.0)
    }

    async fn get_resolved(
        &self,
        endpoint: &Endpoint,
        image: &ImageRef,
        purpose: &Purpose,
        retries: Retries,
    ) -> Result<(Descriptor, Bytes), Error> {
        let url = endpoint.url(image.repository(), &format!("manifests/{}", image.object()))?;
        let request = Request::new(purpose, Method::GET, url).accept(media::ACCEPT_MANIFESTS);
        let response = self.send_checked(endpoint, &request, retries).await?;
        let declared = content_type(response.headers());
        let announced = announced_digest(&response)?;
        let content = read_manifest(response, purpose).await?;
        let digest = image.digest().cloned().or(announced).unwrap_or_else(|| sha256(&content));
        verify(&purpose.subject, &digest, &content)?;
        let media_type = media_type(declared.as_deref(), &content, purpose)?;
        Ok((Descriptor::new(media_type, content.len() as u64, digest), content))
    }
}

/// The descriptor that an answer to HEAD has in its headers, if it has all of it.
fn described(
    response: &Response,
    image: &ImageRef,
    purpose: &Purpose,
) -> Result<Option<Descriptor>, Error> {
    let headers = response.headers();
    // Not the length of the body, which an answer to HEAD has none of.
    let size = headers.get(http::header::CONTENT_LENGTH);
    let size = size.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let announced = announced_digest(response)?;
    let (Some(size), Some(declared)) = (size, content_type(headers)) else { return Ok(None) };
    if !declared.contains("json") {
        return Ok(None);
    }
    let digest = match (image.digest(), announced) {
        (Some(wanted), Some(announced))
            if wanted.algorithm() == announced.algorithm() && *wanted != announced =>
        {
            return Err(Error::DigestMismatch {
                subject: purpose.subject.clone(),
                expected: wanted.clone(),
                actual: announced,
            });
        }
        (Some(wanted), _) => wanted.clone(),
        (None, Some(announced)) => announced,
        (None, None) => return Ok(None),
    };
    if size > MAX_MANIFEST_SIZE {
        let subject = purpose.subject.clone();
        return Err(Error::TooLarge { subject, limit: MAX_MANIFEST_SIZE });
    }
    let media_type = media_type(Some(&declared), b"", purpose)?;
    Ok(Some(Descriptor::new(media_type, size, digest)))
}

pub(crate) async fn read_manifest(response: Response, purpose: &Purpose) -> Result<Bytes, Error> {
    read_limited(response, MAX_MANIFEST_SIZE).await.map_err(|error| match error {
        Error::TooLarge { limit, .. } => {
            Error::TooLarge { subject: purpose.subject.clone(), limit }
        }
        error => error,
    })
}

/// The `Docker-Content-Digest` header.
pub(crate) fn announced_digest(response: &Response) -> Result<Option<Digest>, Error> {
    let Some(value) = response.headers().get("docker-content-digest") else { return Ok(None) };
    let digest = value.to_str().ok().and_then(|text| text.parse().ok());
    let url = || shown(response.url());
    digest
        .ok_or_else(|| Error::Malformed { url: url(), problem: Malformed::DigestHeader })
        .map(Some)
}

/// The `Content-Type` header without its parameters.
fn content_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    let media_type = text.split(';').next().unwrap_or(text).trim();
    (!media_type.is_empty()).then(|| media_type.to_ascii_lowercase())
}

/// What `content` is: as declared, unless that says nothing and the content itself says more.
fn media_type(
    declared: Option<&str>,
    content: &[u8],
    purpose: &Purpose,
) -> Result<MediaType, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Own {
        #[serde(default)]
        media_type: Option<String>,
        #[serde(default)]
        schema_version: Option<u64>,
    }
    let is_vague = |media_type: &str| {
        matches!(media_type, "text/plain" | "application/json" | "application/octet-stream")
    };
    let mut media_type = declared.unwrap_or("application/octet-stream").to_owned();
    if is_vague(&media_type)
        && let Ok(own) = serde_json::from_slice::<Own>(content)
    {
        if own.schema_version == Some(1) {
            media::DOCKER_SCHEMA1.clone_into(&mut media_type);
        } else if let Some(own) = own.media_type {
            media_type = own;
        }
    }
    if media::is_schema1(&media_type) {
        return Err(Error::UnsupportedManifest { subject: purpose.subject.clone(), media_type });
    }
    Ok(MediaType::from(media_type.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_says_what_it_is_where_the_header_does_not() {
        let image: ImageRef = "x".parse().unwrap();
        let purpose = Purpose::pull(&image, image.to_string());
        let docker = format!("{{\"mediaType\":\"{}\"}}", media::DOCKER_MANIFEST);
        let oci = MediaType::ImageManifest;
        let rows = [
            (Some(oci.as_ref()), "{}", Some(oci.as_ref())),
            (Some(oci.as_ref()), docker.as_str(), Some(oci.as_ref())),
            (None, docker.as_str(), Some(media::DOCKER_MANIFEST)),
            (Some("text/plain"), docker.as_str(), Some(media::DOCKER_MANIFEST)),
            (Some("application/json"), "nothing", Some("application/json")),
            (Some("text/plain"), r#"{"schemaVersion":1}"#, None),
            (Some(media::DOCKER_SCHEMA1_SIGNED), "{}", None),
        ];
        for (declared, content, expected) in rows {
            let found = media_type(declared, content.as_bytes(), &purpose).ok();
            assert_eq!(found, expected.map(MediaType::from), "{declared:?} {content}");
        }
    }
}
