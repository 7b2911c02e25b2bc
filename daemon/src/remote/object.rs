//! Caches in object stores: what their attributes mean.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use kiln_cache::remote::ImportedCache as Keys;
use kiln_object_store::{
    AwsCredentials, Azure, AzureConfig, Github, GithubConfig, HttpClient, Listing, Protocol, S3,
    S3Config, Store,
};

use crate::attributes::Attributes;
use crate::config::parse_duration;

/// The types of caches that are in an object store.
const KINDS: [&str; 3] = ["s3", "azblob", "gha"];

/// The index's name, where none is given.
const NAME: &str = "buildkit";
/// How long GitHub's service may ask for patience.
const GITHUB_TIMEOUT: Duration = Duration::from_mins(10);
/// In the address of the service that speaks the newer protocol, for clients that do not say so.
const GITHUB_V2_HOST: &str = "results-receiver.actions.githubusercontent.com";

/// Where the account's address is in the daemon's environment.
const AZURE_URL: &str = "BUILDKIT_AZURE_STORAGE_ACCOUNT_URL";

/// A cache in an object store.
pub(crate) struct ObjectCache {
    kind: &'static str,
    /// What makes it the same cache as another.
    attributes: BTreeMap<String, String>,
    /// An error if it cannot be used, such as for a token that has expired. That is no reason not to
    /// build.
    store: Result<Store, kiln_object_store::Error>,
}

impl std::fmt::Debug for ObjectCache {
    // Attributes are credentials, too.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ObjectCache").field(&self.title()).finish()
    }
}

impl PartialEq for ObjectCache {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.attributes == other.attributes
    }
}

impl Eq for ObjectCache {}

impl ObjectCache {
    /// Reads the attributes of a cache, if it is of a type that is in an object store.
    pub(super) fn parse(
        kind: &str,
        attributes: &mut Attributes,
        http: &HttpClient,
    ) -> anyhow::Result<Option<Self>> {
        let Some(kind) = KINDS.into_iter().find(|known| *known == kind) else { return Ok(None) };
        let all = attributes.take_all("");
        let mut own = Reader { left: all.clone() };
        let title = || format!("{kind} cache");
        let store = match kind {
            "s3" => S3::new(s3(&mut own).with_context(title)?, http).map(Store::S3),
            "azblob" => Azure::new(azblob(&mut own).with_context(title)?, http).map(Store::Azure),
            _ => Github::new(gha(&mut own).with_context(title)?, http).map(Store::Github),
        };
        attributes.give_back(own.left);
        Ok(Some(Self { kind, attributes: all, store }))
    }

    /// The store, if it can be used.
    pub(crate) fn store(&self) -> anyhow::Result<&Store> {
        let unusable = |error| anyhow!("{} cache: {error}", self.kind);
        self.store.as_ref().map_err(unusable)
    }

    /// What users know it by.
    pub(super) fn title(&self) -> String {
        self.store.as_ref().map_or_else(|_| self.kind.to_owned(), Store::title)
    }

    /// What exporting to it is called.
    pub(super) fn exporting(&self) -> &'static str {
        match self.kind {
            "s3" => "exporting cache to Amazon S3",
            "azblob" => "exporting cache to Azure Blob Storage",
            _ => "exporting cache to GitHub Actions Cache",
        }
    }

    /// What it holds; nothing if it is not there yet.
    pub(super) async fn read(&self) -> anyhow::Result<Vec<Keys>> {
        let indexes = self.store()?.indexes().await?;
        tokio::task::spawn_blocking(move || {
            let keys = indexes.iter().map(|json| Keys::parse_annotated(json));
            Ok(keys.collect::<Result<_, _>>()?)
        })
        .await?
    }
}

/// Attributes of a cache, where an empty one counts as none.
struct Reader {
    left: BTreeMap<String, String>,
}

impl Reader {
    fn take(&mut self, name: &str) -> Option<String> {
        self.left.remove(name).filter(|value| !value.is_empty())
    }

    /// The value of an attribute that may also be in the daemon's own environment.
    fn take_or_env(&mut self, name: &str, variable: &str) -> Option<String> {
        let here = || std::env::var(variable).ok().filter(|value| !value.is_empty());
        self.take(name).or_else(here)
    }

    /// The value of an attribute for which emptiness is a value.
    fn text(&mut self, name: &str, default: &str) -> String {
        self.left.remove(name).unwrap_or_else(|| default.to_owned())
    }

    fn names(&mut self) -> Vec<String> {
        let names = self.take("name").unwrap_or_else(|| NAME.to_owned());
        names.split(';').filter(|name| !name.is_empty()).map(str::to_owned).collect()
    }

    fn flag(&mut self, name: &str) -> anyhow::Result<bool> {
        let Some(text) = self.take(name) else { return Ok(false) };
        crate::attributes::boolean(&text)
            .with_context(|| format!("{name}={text:?} is not a boolean"))
    }

    fn duration(&mut self, name: &str, default: Duration) -> anyhow::Result<Duration> {
        let Some(text) = self.take(name) else { return Ok(default) };
        parse_duration(&text).with_context(|| format!("{name}={text:?} is not a duration"))
    }

    /// A number above zero.
    fn number<T: std::str::FromStr + Default + PartialEq>(
        &mut self,
        name: &str,
        default: T,
    ) -> anyhow::Result<T> {
        let Some(text) = self.take(name) else { return Ok(default) };
        let number = text.parse().ok().filter(|number| *number != T::default());
        number.with_context(|| format!("{name}={text:?} is not a positive number"))
    }
}

/// The most that is sent at once: each is a connection.
const MAX_UPLOADS: usize = 64;

fn s3(attributes: &mut Reader) -> anyhow::Result<S3Config> {
    let bucket = attributes.take_or_env("bucket", "AWS_BUCKET").context("bucket is missing")?;
    let region = attributes.take_or_env("region", "AWS_REGION").context("region is missing")?;
    let usual = S3Config::new(bucket, region);
    // What it would put into signatures never is there.
    attributes.flag("disable_accept_encoding")?;
    match attributes.take("retry_mode").as_deref() {
        None | Some("standard") => {}
        Some(other) => bail!("retry_mode={other:?} is not supported: standard is"),
    }
    let access_key_id = attributes.take("access_key_id");
    let secret_access_key = attributes.take("secret_access_key");
    let session_token = attributes.take("session_token");
    let credentials = match (access_key_id, secret_access_key) {
        (Some(access_key_id), Some(secret_access_key)) => {
            Some(AwsCredentials { access_key_id, secret_access_key, session_token })
        }
        (None, None) => None,
        (Some(_), None) => bail!("secret_access_key is missing"),
        (None, Some(_)) => bail!("access_key_id is missing"),
    };
    Ok(S3Config {
        prefix: attributes.text("prefix", ""),
        manifests_prefix: attributes.text("manifests_prefix", &usual.manifests_prefix),
        blobs_prefix: attributes.text("blobs_prefix", &usual.blobs_prefix),
        names: attributes.names(),
        touch_refresh: attributes.duration("touch_refresh", usual.touch_refresh)?,
        endpoint: attributes.take("endpoint_url"),
        use_path_style: attributes.flag("use_path_style")?,
        credentials,
        upload_parallelism: attributes
            .number("upload_parallelism", usual.upload_parallelism)?
            .min(MAX_UPLOADS),
        max_attempts: attributes.number("retry_max_attempts", usual.max_attempts)?,
        ..usual
    })
}

fn azblob(attributes: &mut Reader) -> anyhow::Result<AzureConfig> {
    let account_url =
        attributes.take_or_env("account_url", AZURE_URL).context("account_url is missing")?;
    let in_host = || {
        let url = url::Url::parse(&account_url).ok()?;
        url.host_str()?.split('.').next().map(str::to_owned)
    };
    Ok(AzureConfig {
        account_name: attributes
            .take_or_env("account_name", "BUILDKIT_AZURE_STORAGE_ACCOUNT_NAME")
            .or_else(in_host)
            .context("account_name is missing")?,
        secret_access_key: attributes.take("secret_access_key"),
        trusted_url: std::env::var(AZURE_URL).ok(),
        container: attributes
            .take_or_env("container", "BUILDKIT_AZURE_STORAGE_CONTAINER")
            .unwrap_or_else(|| "buildkit-cache".to_owned()),
        prefix: attributes
            .take_or_env("prefix", "BUILDKIT_AZURE_STORAGE_PREFIX")
            .unwrap_or_default(),
        manifests_prefix: attributes.text("manifests_prefix", "manifests"),
        blobs_prefix: attributes.text("blobs_prefix", "blobs"),
        names: attributes.names(),
        account_url,
    })
}

fn gha(attributes: &mut Reader) -> anyhow::Result<GithubConfig> {
    let token = attributes.take("token").context("token is missing (ACTIONS_RUNTIME_TOKEN)")?;
    let version = match attributes.take("version").as_deref() {
        None => None,
        Some("1") => Some(Protocol::V1),
        Some("2") => Some(Protocol::V2),
        Some(other) => bail!("version={other:?} is neither 1 nor 2"),
    };
    let (url, url_v2) = (attributes.take("url"), attributes.take("url_v2"));
    let (url, protocol) = match (version, url, url_v2) {
        (None | Some(Protocol::V2), _, Some(url)) => (url, Protocol::V2),
        (Some(protocol), Some(url), _) => (url, protocol),
        (None, Some(url), None) if url.contains(GITHUB_V2_HOST) => (url, Protocol::V2),
        (None, Some(url), None) => (url, Protocol::V1),
        (_, None, _) => bail!("url is missing (ACTIONS_CACHE_URL or ACTIONS_RESULTS_URL)"),
    };
    let api = || std::env::var("GITHUB_API_URL").ok().filter(|url| !url.is_empty());
    let listing = match (attributes.take("repository"), attributes.take("ghtoken")) {
        (Some(repository), Some(token)) => Some(Listing {
            api: api().unwrap_or_else(|| "https://api.github.com".to_owned()),
            repository,
            token,
        }),
        // One without the other is what clients send that fill in what they know; it is for listing
        // only, and a cache can be read without that.
        _ => None,
    };
    Ok(GithubConfig {
        url,
        protocol,
        token,
        scope: attributes.take("scope").unwrap_or_else(|| NAME.to_owned()),
        timeout: attributes.duration("timeout", GITHUB_TIMEOUT)?,
        listing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(kind: &str, given: &[(&str, &str)]) -> anyhow::Result<ObjectCache> {
        let given = given.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        let mut attributes = Attributes::new(format!("{kind} cache import"), &given.collect());
        let cache = ObjectCache::parse(kind, &mut attributes, &HttpClient::default())?;
        attributes.finish()?;
        Ok(cache.unwrap())
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let s3 = [("bucket", "b"), ("region", "r"), ("access_key_id", "i")];
        let with = |more: &[(&'static str, &'static str)]| [&s3[..], more].concat();
        for (kind, given, says) in [
            ("s3", vec![("region", "r")], "s3 cache: bucket is missing"),
            ("s3", with(&[]), "s3 cache: secret_access_key is missing"),
            (
                "s3",
                with(&[("secret_access_key", "s"), ("upload_parallelism", "0")]),
                "positive number",
            ),
            (
                "s3",
                with(&[("secret_access_key", "s"), ("touch_refresh", "soon")]),
                "not a duration",
            ),
            ("s3", with(&[("secret_access_key", "s"), ("colour", "red")]), "colour"),
            ("azblob", vec![("account_name", "a")], "account_url is missing"),
            ("gha", vec![("url", "https://host")], "token is missing"),
            ("gha", vec![("token", "t")], "url is missing"),
            ("gha", vec![("token", "t"), ("version", "3")], "neither 1 nor 2"),
        ] {
            let error = format!("{:#}", parse(kind, &given).unwrap_err());
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn credentials_that_cannot_be_used_are_no_reason_not_to_build() {
        let cache = parse("gha", &[("url", "https://host"), ("token", "secret")]).unwrap();
        let error = format!("{:#}", cache.store().unwrap_err());
        assert!(error.contains("not that of a job"), "{error}");
        assert!(!format!("{cache:?}{error}").contains("secret"));

        let cache = parse("azblob", &[("account_url", "https://a.host")]).unwrap();
        let error = format!("{:#}", cache.store().unwrap_err());
        assert!(error.contains("secret_access_key is missing"), "{error}");
    }

    #[test]
    fn the_protocol_of_github_is_told_by_version_and_addresses() {
        let (v1, v2) = (("url", "https://one"), ("url_v2", "https://two"));
        for (given, expected) in [
            (vec![v1], ("https://one", Protocol::V1)),
            (vec![v1, v2], ("https://two", Protocol::V2)),
            (vec![v1, v2, ("version", "1")], ("https://one", Protocol::V1)),
            (vec![v1, ("version", "2")], ("https://one", Protocol::V2)),
            (
                vec![("url", "https://results-receiver.actions.githubusercontent.com/")],
                ("https://results-receiver.actions.githubusercontent.com/", Protocol::V2),
            ),
        ] {
            let given = given.into_iter().chain([("token", "t")]);
            let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
            let config = gha(&mut Reader { left: given.collect() }).unwrap();
            assert_eq!((config.url.as_str(), config.protocol), expected);
        }
    }
}
