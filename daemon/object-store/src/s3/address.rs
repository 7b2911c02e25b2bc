//! Addresses of buckets and objects.

use url::{Host, Url};

use super::S3Config;
use crate::error::Error;

/// A bucket's address.
#[derive(Debug)]
pub(super) struct Address {
    base: Url,
    /// The bucket and the object's name in requests that copy.
    bucket: String,
}

impl Address {
    pub(super) fn of(config: &S3Config) -> Result<Self, Error> {
        let S3Config { bucket, region, endpoint, .. } = config;
        let is_word = |text: &str| {
            let is_usual = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            !text.is_empty() && text.chars().all(is_usual) && !text.trim_matches('.').is_empty()
        };
        for (setting, value) in [("bucket", bucket), ("region", region)] {
            if !is_word(value) {
                return Err(Error::Setting { setting, problem: format!("{value:?} is not valid") });
            }
        }
        let invalid = |problem: String| Error::Setting { setting: "endpoint_url", problem };
        let (mut base, by_path) = match endpoint {
            Some(endpoint) => {
                let url = Url::parse(endpoint)
                    .ok()
                    .filter(|url| matches!(url.scheme(), "http" | "https"))
                    .ok_or_else(|| invalid(format!("{endpoint:?} is not an HTTP address")))?;
                let by_path = config.use_path_style || !matches!(url.host(), Some(Host::Domain(_)));
                (url, by_path)
            }
            None => {
                let domain = match region.split('-').next() {
                    Some("cn") => "amazonaws.com.cn",
                    _ => "amazonaws.com",
                };
                let url = format!("https://s3.{region}.{domain}");
                let url = Url::parse(&url).map_err(|error| invalid(error.to_string()))?;
                // A certificate is for one label before the host.
                (url, bucket.contains('.'))
            }
        };
        base.set_query(None);
        base.set_fragment(None);
        if by_path {
            push(&mut base, &[bucket])?;
        } else {
            let host = format!("{bucket}.{}", base.host_str().unwrap_or_default());
            base.set_host(Some(&host)).map_err(|error| invalid(error.to_string()))?;
        }
        Ok(Self { base, bucket: bucket.clone() })
    }

    /// An object's address.
    pub(super) fn object(&self, key: &str) -> Url {
        let mut url = self.base.clone();
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{path}/{}", encode(key)));
        url
    }

    /// An object's name as the source of a copy.
    pub(super) fn source(&self, key: &str) -> String {
        format!("{}/{}", self.bucket, encode(key))
    }
}

fn push(url: &mut Url, segments: &[&str]) -> Result<(), Error> {
    let problem = "it cannot have a path".to_owned();
    let mut path = url
        .path_segments_mut()
        .map_err(|()| Error::Setting { setting: "endpoint_url", problem })?;
    path.pop_if_empty().extend(segments);
    Ok(())
}

/// An object's name in a path, as signatures want it.
fn encode(key: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const KEPT: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');
    // An address has no such segments, an object's name may.
    utf8_percent_encode(key, KEPT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_is_in_the_host_where_it_can_be() {
        let config = S3Config::new("bucket", "eu-west-1");
        let at = |endpoint: &str| S3Config { endpoint: Some(endpoint.into()), ..config.clone() };
        let by_path = |endpoint: &str| S3Config { use_path_style: true, ..at(endpoint) };
        for (config, expected) in [
            (config.clone(), "https://bucket.s3.eu-west-1.amazonaws.com/a/sha256%3A1"),
            (
                S3Config::new("my.bucket", "cn-north-1"),
                "https://s3.cn-north-1.amazonaws.com.cn/my.bucket/a/sha256%3A1",
            ),
            (at("https://minio.example:9000/"), "https://bucket.minio.example:9000/a/sha256%3A1"),
            (by_path("http://minio.example"), "http://minio.example/bucket/a/sha256%3A1"),
            (by_path("http://host/s3/?x=1"), "http://host/s3/bucket/a/sha256%3A1"),
            (at("http://127.0.0.1:9000"), "http://127.0.0.1:9000/bucket/a/sha256%3A1"),
        ] {
            let url = Address::of(&config).unwrap().object("a/sha256:1");
            assert_eq!(url.as_str(), expected);
        }
        for bad in ["ftp://host", "host", "http://"] {
            assert!(Address::of(&at(bad)).is_err(), "{bad}");
        }
        assert!(Address::of(&S3Config::new("a/b", "r")).is_err());
        assert!(Address::of(&S3Config::new("..", "r")).is_err());
    }
}
