//! Importing: a cache's config is read when a build begins; its layers when their files are needed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context as _, bail};
use futures::future::join_all;
use kiln_cache::remote::{CacheManifest, ExportRecord, ImportedCache as Keys, ImportedHit};
use kiln_cache::{CacheKey, Descriptor, Digest, Hit, Record, RecordType};
use kiln_object_store::HttpClient;
use kiln_proto::control::CacheOptionsEntry;
use serde::Deserialize;
use tokio::io::AsyncReadExt as _;
use tokio::sync::OnceCell;

use super::{ObjectCache, Place, inline, store_id};
use crate::attributes::Attributes;
use crate::image::{Origin, unfetched};
use crate::solver::Build;

/// A cache config larger than this is refused.
const MAX_CONFIG: u64 = 256 << 20;

/// Caches that a client named, in its order.
#[derive(Default)]
pub(crate) struct Imports {
    caches: Vec<Arc<ImportedCache>>,
}

/// One imported cache.
pub(crate) struct ImportedCache {
    place: Place,
    /// The manifest's digest, where the client knows it.
    digest: Option<Digest>,
    /// What it holds, of an image for each of its platforms; nothing if it cannot be used, of which
    /// the user was told.
    loaded: OnceCell<Vec<Keys>>,
}

/// A step whose result is looked for.
pub(crate) struct Wanted {
    pub(crate) key: CacheKey,
    pub(crate) op: Digest,
    pub(crate) output: u32,
    /// The step's name.
    pub(crate) name: String,
    /// What is said of the layer of this output.
    pub(crate) description: String,
}

impl Imports {
    /// Reads what a request says of imports: in a field of its own, and once more in an option for
    /// the frontend.
    pub(crate) fn parse(
        entries: &[CacheOptionsEntry],
        frontend: &BTreeMap<String, String>,
        http: &HttpClient,
    ) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Entry {
            r#type: String,
            #[serde(default)]
            attrs: BTreeMap<String, String>,
        }
        let mut imports = Self::default();
        for entry in entries {
            imports.add(&entry.r#type, &entry.attrs, http)?;
        }
        let json = frontend.get("cache-imports").filter(|json| !json.is_empty());
        let named: Vec<Entry> = match json {
            Some(json) => serde_json::from_str(json).context("invalid option cache-imports")?,
            None => Vec::new(),
        };
        for entry in named {
            imports.add(&entry.r#type, &entry.attrs, http)?;
        }
        // The way of older clients.
        let references = frontend.get("cache-from").map_or("", String::as_str);
        for reference in references.split(',').filter(|reference| !reference.is_empty()) {
            let attrs = BTreeMap::from([("ref".to_owned(), reference.to_owned())]);
            imports.add("registry", &attrs, http)?;
        }
        Ok(imports)
    }

    fn add(
        &mut self,
        kind: &str,
        attributes: &BTreeMap<String, String>,
        http: &HttpClient,
    ) -> anyhow::Result<()> {
        let mut attributes = Attributes::new(format!("{kind} cache import"), attributes);
        let place = Place::parse(kind, &mut attributes, "src", http)?;
        // The client has turned the tag into a digest.
        attributes.take("tag");
        let digest = match attributes.take("digest").filter(|digest| !digest.is_empty()) {
            Some(text) => Some(text.parse().with_context(|| format!("digest={text:?}"))?),
            None => None,
        };
        if matches!(place, Place::Directory(_)) && digest.is_none() {
            bail!("local cache: digest is missing");
        }
        attributes.finish()?;
        if !self.caches.iter().any(|known| known.place == place && known.digest == digest) {
            self.caches.push(Arc::new(ImportedCache { place, digest, loaded: OnceCell::new() }));
        }
        Ok(())
    }

    pub(crate) fn caches(&self) -> Vec<Arc<ImportedCache>> {
        self.caches.clone()
    }

    /// Registries of which the client says that they need not be trusted.
    pub(crate) fn insecure_hosts(&self) -> BTreeSet<String> {
        let host = |cache: &Arc<ImportedCache>| match &cache.place {
            Place::Registry { image, is_insecure: true } => Some(image.host().to_owned()),
            _ => None,
        };
        self.caches.iter().filter_map(host).collect()
    }

    /// Reads all of them. One that cannot be used is shown as failed, and the build goes on.
    pub(crate) async fn load(&self, build: &Arc<Build>) {
        join_all(self.caches.iter().map(|cache| cache.keys(build))).await;
    }
}

impl ImportedCache {
    /// The place that its layers come from.
    fn origin(&self) -> anyhow::Result<Origin> {
        Ok(match &self.place {
            Place::Registry { image, .. } => Origin::Registry(image.clone()),
            Place::Directory(path) => Origin::Session(store_id(path)),
            Place::Store(cache) => Origin::Store(cache.store()?.place()),
        })
    }

    /// The cache itself, if it is in the object store at `place`.
    pub(crate) fn store_at(&self, place: &str) -> Option<&ObjectCache> {
        match &self.place {
            Place::Store(cache) => {
                cache.store().is_ok_and(|store| store.place() == place).then_some(cache)
            }
            _ => None,
        }
    }

    /// Whether it is the content store `store` of the client.
    pub(crate) fn is_store(&self, store: &str) -> bool {
        matches!(&self.place, Place::Directory(path) if store_id(path) == store)
    }

    /// What the cache holds. The first who asks reads it.
    async fn keys(&self, build: &Arc<Build>) -> &[Keys] {
        let load = || async {
            let name = match &self.place {
                Place::Registry { image, .. } => image.to_string(),
                Place::Directory(path) => store_id(path),
                Place::Store(cache) => cache.title(),
            };
            let vertex = build.progress.internal(
                &format!("import:{name}"),
                &format!("importing cache manifest from {name}"),
            );
            vertex.run(self.read(build)).await.unwrap_or_default()
        };
        self.loaded.get_or_init(load).await
    }

    async fn read(&self, build: &Arc<Build>) -> anyhow::Result<Vec<Keys>> {
        let origin = self.origin()?;
        let json = match (&self.place, self.digest) {
            (Place::Registry { image, .. }, digest) => {
                let image = match digest {
                    Some(digest) => image.with_digest(digest.to_string().parse()?),
                    None => image.clone(),
                };
                build.registry.resolve(&image).await?.1.to_vec()
            }
            (Place::Directory(_), Some(digest)) => {
                origin.small_blob(build, &Descriptor::new("", digest, 0)).await?
            }
            (Place::Directory(_), None) => bail!("digest is missing"),
            (Place::Store(cache), _) => return cache.read().await,
        };
        let Some(manifest) = CacheManifest::parse(&json)? else {
            return inline::read(build, &origin, &json).await;
        };
        if manifest.config.size > MAX_CONFIG {
            bail!("its config has {} bytes, more than {MAX_CONFIG}", manifest.config.size);
        }
        let mut config = Vec::new();
        let reader = origin.blob(build, &manifest.config).await?;
        reader.take(MAX_CONFIG + 1).read_to_end(&mut config).await?;
        tokio::task::spawn_blocking(move || {
            let actual = Digest::of(&config);
            if actual != manifest.config.digest {
                bail!("content of {} has digest {actual}", manifest.config.digest);
            }
            Ok(vec![Keys::parse(&config, &manifest.layers)?])
        })
        .await?
    }

    /// A result that the cache has, made a record of the daemon's own. None of it is fetched.
    pub(crate) async fn lookup(
        &self,
        build: &Arc<Build>,
        wanted: &Wanted,
    ) -> anyhow::Result<Option<Hit<Record>>> {
        let Ok(origin) = self.origin() else { return Ok(None) };
        if build.has_lost(&origin.to_string()) {
            return Ok(None);
        }
        let mut caches = self.keys(build).await.iter();
        let Some(hit) = caches.find_map(|keys| keys.lookup(&[wanted.key])) else {
            return Ok(None);
        };
        let ImportedHit { key, inputs, blobs, created_at } = hit;
        let layers: Option<Vec<_>> =
            blobs.into_iter().map(|blob| blob.diff_id().map(|diff_id| (blob, diff_id))).collect();
        // Without the uncompressed digests there is no telling whether what is fetched is right.
        let Some(layers) = layers else { return Ok(None) };
        let stack = unfetched(build, &layers, Some(&origin), &wanted.description)?;
        let record = Record {
            key,
            op: wanted.op,
            output: wanted.output,
            inputs,
            result: stack.ids().to_vec(),
            description: wanted.name.clone(),
            record_type: RecordType::Regular,
            created_at: created_at.into(),
            duration: None,
        };
        let pin = build.daemon.index.save(
            record.clone(),
            &kiln_cache::KeyParts::default(),
            &[wanted.key],
            &[],
        )?;
        Ok(Some(Hit { row: record, pin }))
    }

    /// The keys that this cache makes dependants' keys from, if it knows all of `keys`, whether or
    /// not it has results for them.
    pub(crate) async fn primaries(
        &self,
        build: &Arc<Build>,
        keys: &[CacheKey],
    ) -> Option<Vec<CacheKey>> {
        let mut caches = self.keys(build).await.iter();
        caches.find_map(|known| keys.iter().map(|key| known.primary(key)).collect())
    }

    /// What the cache says of a step, as far as it was read.
    pub(crate) fn record(&self, key: &CacheKey) -> Option<ExportRecord> {
        self.loaded.get()?.iter().find_map(|keys| keys.record(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_named_in_the_request_or_in_options_of_newer_and_older_clients() {
        let entry = |reference: &str| CacheOptionsEntry {
            r#type: "registry".into(),
            attrs: BTreeMap::from([("ref".into(), reference.into())]),
        };
        let json = r#"[{"Type": "registry", "Attrs": {"ref": "host/b:1"}}]"#;
        let options = BTreeMap::from([
            ("cache-imports".to_owned(), json.to_owned()),
            ("cache-from".to_owned(), "host/c:1,host/a:1,".to_owned()),
        ]);
        let imports =
            Imports::parse(&[entry("host/a:1")], &options, &HttpClient::default()).unwrap();
        let named: Vec<_> =
            imports.caches.iter().map(|cache| format!("{:?}", cache.place)).collect();
        assert_eq!(named.len(), 3, "{named:?}");
        for (name, place) in ["host/a", "host/b", "host/c"].iter().zip(named) {
            assert!(place.contains(&name[5..]), "{place}");
        }
    }
}
