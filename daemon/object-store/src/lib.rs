//! A client of the services that keep caches as objects: S3 and what speaks its protocol, Azure Blob
//! Storage, and the cache of GitHub Actions.
//!
//! A cache has **blobs**, each under a name made of its digest, and under each of its names an
//! **index**, which is BuildKit's cache config as JSON. Where the objects are, and what they are
//! called, is BuildKit's convention, so that caches can be shared with it.
//!
//! What it promises:
//! - blobs are read and written as streams, and several at once within a bound; a blob that is there
//!   is not written again;
//! - a blob's stream yields exactly the size that was asked for or an error, and survives connections
//!   that are cut; its digest is for the caller to check;
//! - nothing waits for ever, and trouble that may pass is met with patience;
//! - no error message carries a credential or a signed address, and no redirect is followed with one;
//! - a token of this machine's is shown to nobody but the service that it is for, or whom the machine's
//!   owner has named;
//! - nothing that a server sends (sizes, addresses, documents) is trusted.
//!
//! ```
//! use kiln_object_store::{HttpClient, S3, S3Config, Store};
//!
//! let mut config = S3Config::new("builds", "eu-central-1");
//! config.prefix = "app/".to_owned();
//! let store = Store::S3(S3::new(config, &HttpClient::default())?);
//! assert_eq!(store.place(), "s3:https://builds.s3.eu-central-1.amazonaws.com/app/blobs/");
//! # Ok::<(), kiln_object_store::Error>(())
//! ```
#![forbid(unsafe_code)]

mod error;
mod store;

mod azure;
mod github;
mod s3;

mod block_blob;
mod download;
mod http_client;
mod identity;
mod patience;
mod request;

pub use azure::{Azure, AzureConfig};
pub use error::{Answer, Error};
pub use github::{Github, GithubConfig, Listing, Protocol};
pub use http_client::HttpClient;
pub use s3::{AwsCredentials, S3, S3Config};
pub use store::{Blob, BlobReader, MAX_INDEX, Store};
