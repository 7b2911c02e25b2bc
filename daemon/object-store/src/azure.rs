//! Azure Blob Storage.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::future::try_join_all;
use http::Method;
use reqsign_azure_storage::{
    Credential, DefaultCredentialProvider, RequestSigner, StaticCredentialProvider,
};
use tokio::sync::Semaphore;
use url::Url;

use crate::block_blob::{self, BlockBlob, PARALLELISM, request};
use crate::download::download;
use crate::error::{Error, shown};
use crate::http_client::HttpClient;
use crate::identity::Identity;
use crate::request::read_limited;
use crate::store::{Blob, BlobReader, MAX_INDEX};

/// Where a cache in a storage account is.
#[derive(Clone)]
pub struct AzureConfig {
    /// The account's address.
    pub account_url: String,
    /// The account's name.
    pub account_name: String,
    /// The account's key, in base64. Without one, requests are made as the machine that this runs
    /// on: as what its environment names, a workload's identity, or its managed identity.
    pub secret_access_key: Option<String>,
    /// An account's address to which the machine's identity may be shown though it is not in Azure.
    pub trusted_url: Option<String>,
    /// The container, which is made if it is not there.
    pub container: String,
    /// The folder of all blobs.
    pub prefix: String,
    /// The folder of indexes in it.
    pub manifests_prefix: String,
    /// The folder of the cache's blobs in it.
    pub blobs_prefix: String,
    /// The names of the index.
    pub names: Vec<String>,
}

impl fmt::Debug for AzureConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let url = ("account_url", &self.account_url);
        f.debug_struct("AzureConfig").field(url.0, url.1).finish_non_exhaustive()
    }
}

/// A cache in a container of a storage account.
pub struct Azure {
    config: AzureConfig,
    container: Url,
    signer: Arc<Identity<Credential>>,
    http: HttpClient,
    uploads: Semaphore,
}

impl fmt::Debug for Azure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Azure").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Azure {
    /// Talks with nobody yet.
    ///
    /// # Errors
    /// [`Error::Setting`] if the address or the key is not valid, [`Error::Credentials`] if there is
    /// no key and this machine's identity may not be shown at the address.
    pub fn new(config: AzureConfig, http: &HttpClient) -> Result<Self, Error> {
        let invalid =
            |setting, problem: &str| Error::Setting { setting, problem: problem.to_owned() };
        let mut container = Url::parse(&config.account_url)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or_else(|| invalid("account_url", "it is not an HTTP address"))?;
        container.set_query(None);
        container.set_fragment(None);
        let is_usual = |c: char| c.is_ascii_alphanumeric() || "-$".contains(c);
        if config.container.is_empty() || !config.container.chars().all(is_usual) {
            return Err(invalid("container", "it is not a container's name"));
        }
        let signer = Arc::new(identity(&config, &container, http)?);
        push(&mut container, &[&config.container]);
        let (http, uploads) = (http.clone(), Semaphore::new(PARALLELISM));
        Ok(Self { config, container, signer, http, uploads })
    }

    pub(crate) fn place(&self) -> String {
        format!("azblob:{}", self.at(&self.config.blobs_prefix, ""))
    }

    pub(crate) fn title(&self) -> String {
        let name = self.config.names.first().map_or("", String::as_str);
        format!("azblob:{}", self.at(&self.config.manifests_prefix, name))
    }

    /// The address of a blob in a folder below the prefix.
    fn at(&self, folder: &str, name: &str) -> Url {
        let mut url = self.container.clone();
        let mut path: Vec<&str> = Vec::new();
        // As a path is cleaned: what leads up cannot leave the container.
        for part in [&self.config.prefix, folder, name].into_iter().flat_map(|path| path.split('/'))
        {
            match part {
                "" | "." => {}
                ".." => drop(path.pop()),
                part => path.push(part),
            }
        }
        push(&mut url, &path);
        url
    }

    fn blob_url(&self, blob: Blob<'_>) -> Url {
        self.at(&self.config.blobs_prefix, blob.digest)
    }

    pub(crate) async fn indexes(&self) -> Result<Vec<Bytes>, Error> {
        let all = self.config.names.iter().map(async |name| {
            let url = self.at(&self.config.manifests_prefix, name);
            match request(Method::GET, url.clone())?.send(&self.http, &*self.signer).await {
                Ok(response) => read_limited(response, &url, MAX_INDEX).await.map(Some),
                Err(error) if error.is_not_found() => Ok(None),
                Err(error) => Err(error),
            }
        });
        Ok(try_join_all(all).await?.into_iter().flatten().collect())
    }

    pub(crate) async fn save_index(&self, json: Bytes) -> Result<(), Error> {
        for name in &self.config.names {
            let url = self.at(&self.config.manifests_prefix, name);
            self.make_container().await?;
            BlockBlob { http: &self.http, url, sign: &*self.signer }.put(json.clone()).await?;
        }
        Ok(())
    }

    /// Makes the container if it is not there.
    async fn make_container(&self) -> Result<(), Error> {
        let mut url = self.container.clone();
        url.query_pairs_mut().append_pair("restype", "container");
        match request(Method::HEAD, url.clone())?.send(&self.http, &*self.signer).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        match request(Method::PUT, url)?.send(&self.http, &*self.signer).await {
            // Somebody else was faster.
            Err(error) if error.is_conflict() => Ok(()),
            outcome => outcome.map(drop),
        }
    }

    pub(crate) async fn has_blob(&self, blob: Blob<'_>) -> Result<bool, Error> {
        let url = self.blob_url(blob);
        match request(Method::HEAD, url)?.send(&self.http, &*self.signer).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn blob(&self, blob: Blob<'_>) -> Result<BlobReader, Error> {
        let url = self.blob_url(blob);
        let (http, asked, signer) = (self.http.clone(), url.clone(), self.signer.clone());
        let ask =
            move |offset| block_blob::ask(http.clone(), asked.clone(), signer.clone(), offset);
        download(url, blob.size, Box::new(ask)).await
    }

    pub(crate) async fn save_blob(&self, blob: Blob<'_>, path: &Path) -> Result<(), Error> {
        let url = self.blob_url(blob);
        let target = BlockBlob { http: &self.http, url, sign: &*self.signer };
        match target.put_file(path, blob.size, &self.uploads).await {
            Err(error) if error.is_not_found() => {
                self.make_container().await?;
                target.put_file(path, blob.size, &self.uploads).await
            }
            outcome => outcome,
        }
    }
}

/// Adds the parts of a path to an address.
fn push(url: &mut Url, parts: &[&str]) {
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(parts);
    }
}

/// Where storage accounts are in Azure's clouds.
const HOSTS: [&str; 4] = [
    ".blob.core.windows.net",
    ".blob.storage.azure.net",
    ".blob.core.usgovcloudapi.net",
    ".blob.core.chinacloudapi.cn",
];

/// The identity that a cache is asked with ("Authorize requests to Azure Storage" in the service's
/// reference).
fn identity(
    config: &AzureConfig,
    url: &Url,
    http: &HttpClient,
) -> Result<Identity<Credential>, Error> {
    let signer = RequestSigner::new();
    if let Some(key) = &config.secret_access_key {
        // The reason would show a part of the key.
        let invalid = |_| Error::Setting {
            setting: "secret_access_key",
            problem: "it is not base64".to_owned(),
        };
        STANDARD.decode(key).map_err(invalid)?;
        let provider = StaticCredentialProvider::new_shared_key(&config.account_name, key);
        return Ok(Identity::given(provider, signer));
    }
    // A token is not bound to an address: who is shown one can go on as this machine.
    let is_azures = url.scheme() == "https"
        && url.host_str().is_some_and(|host| HOSTS.iter().any(|end| host.ends_with(end)));
    let is_trusted = config.trusted_url.as_ref() == Some(&config.account_url);
    if !is_azures && !is_trusted {
        return Err(Error::Credentials(format!(
            "secret_access_key is missing, and the identity of the daemon's machine is shown to \
             Azure and to the BUILDKIT_AZURE_STORAGE_ACCOUNT_URL of its environment only, not to \
             {}",
            shown(url)
        )));
    }
    let provider = DefaultCredentialProvider::builder().no_azure_cli().no_azure_pipelines().build();
    Identity::of_machine("Azure", provider, signer, http)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(account_url: &str, prefix: &str) -> AzureConfig {
        AzureConfig {
            account_url: account_url.to_owned(),
            account_name: "account".to_owned(),
            secret_access_key: Some(STANDARD.encode("key")),
            trusted_url: None,
            container: "cache".to_owned(),
            prefix: prefix.to_owned(),
            manifests_prefix: "manifests".to_owned(),
            blobs_prefix: "blobs".to_owned(),
            names: vec!["buildkit".to_owned()],
        }
    }

    #[test]
    fn blobs_are_in_folders_of_the_container() {
        let blob = Blob { digest: "sha256:1", size: 1 };
        for (account, prefix, expected) in [
            (
                "https://a.blob.core.windows.net",
                "",
                "https://a.blob.core.windows.net/cache/blobs/sha256:1",
            ),
            ("http://127.0.0.1:1/a/", "x/../y/", "http://127.0.0.1:1/a/cache/y/blobs/sha256:1"),
        ] {
            let azure = Azure::new(config(account, prefix), &HttpClient::default()).unwrap();
            assert_eq!(azure.blob_url(blob).as_str(), expected);
        }
    }

    #[test]
    fn the_machines_identity_is_shown_to_azure_and_to_an_address_of_the_daemons_own_only() {
        let is_shown = |account_url: &str, trusted_url: Option<&str>| {
            let config = AzureConfig {
                secret_access_key: None,
                trusted_url: trusted_url.map(str::to_owned),
                ..config(account_url, "")
            };
            Azure::new(config, &HttpClient::default()).is_ok()
        };
        assert!(is_shown("https://a.blob.core.windows.net", None));
        assert!(is_shown("https://a.z01.blob.storage.azure.net/", None));
        assert!(is_shown("http://127.0.0.1:1/a", Some("http://127.0.0.1:1/a")));
        for other in [
            "http://a.blob.core.windows.net",
            "https://a.blob.core.windows.net.example.com",
            "https://blob.core.windows.net@example.com/",
            "https://example.com/.blob.core.windows.net",
            "http://127.0.0.1:1/a",
        ] {
            assert!(!is_shown(other, None), "{other}");
            assert!(!is_shown(other, Some("http://127.0.0.1:2/a")), "{other}");
        }
    }
}
