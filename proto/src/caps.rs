//! Names of what a daemon can do.
//!
//! A client uses a field, an operation or a call only if its name is in the list that
//! `LLBBridge.Ping` gives, so a daemon lists exactly the groups here that work.

use crate::apicaps::ApiCap;

/// Lists names as enabled.
pub fn enabled<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<ApiCap> {
    let cap = |name: &str| ApiCap { id: name.to_owned(), enabled: true, ..ApiCap::default() };
    names.into_iter().map(cap).collect()
}

/// Names of the list about definitions: sources, operations, caches and exporters.
pub mod llb {
    /// Images of registries.
    pub const IMAGE: &[&str] = &[
        "source.image",
        "source.image.resolvemode",
        "source.image.layerlimit",
        "source.image.checksum",
    ];
    /// Single blobs of registries.
    pub const IMAGE_BLOB: &[&str] = &["source.imageblob"];
    /// Images in the client's content stores.
    pub const OCI_LAYOUT: &[&str] = &["source.ocilayout"];
    /// The client's directories.
    pub const LOCAL: &[&str] = &[
        "source.local",
        "source.local.unique",
        "source.local.sessionid",
        "source.local.includepatterns",
        "source.local.followpaths",
        "source.local.excludepatterns",
        "source.local.sharedkeyhint",
        "source.local.differ",
    ];
    /// Only the names and attributes of a directory's files.
    pub const LOCAL_METADATA_ONLY: &[&str] = &["source.local.metadatatransfer"];
    /// Git repositories.
    pub const GIT: &[&str] = &[
        "source.git",
        "source.git.keepgitdir",
        "source.git.fullurl",
        "source.git.httpauth",
        "source.git.knownsshhosts",
        "source.git.mountsshsock",
        "source.git.subdir",
        "source.git.checksum",
        "source.git.skipsubmodules",
        "source.git.fetchbycommit",
    ];
    /// Times of a repository's files taken from its commits.
    pub const GIT_MTIME: &[&str] = &["source.git.mtime"];
    /// Signed commits and tags.
    pub const GIT_SIGNATURE: &[&str] = &["source.git.signatureverify"];
    /// Repositories as bundles.
    pub const GIT_BUNDLE: &[&str] = &["source.git.bundle", "source.git.checkoutbundle"];
    /// Files by URL. One of these names has been misspelt from its beginning.
    pub const HTTP: &[&str] = &[
        "source.http",
        "source.http.auth",
        "source.http.checksum",
        "source.http.perm",
        "soruce.http.uidgid",
        "source.http.header",
    ];
    /// Files by URL with a detached signature.
    pub const HTTP_SIGNATURE: &[&str] = &["source.http.signatureverify"];
    /// Definitions that are themselves a vertex's output.
    pub const BUILD_OP: &[&str] = &["source.buildop.llbfilename"];
    /// Processes.
    pub const EXEC: &[&str] = &[
        "exec.meta.base",
        "exec.meta.network",
        "exec.meta.proxyenv",
        "exec.meta.security",
        "exec.meta.setsdefaultpath",
        "exec.meta.ulimit",
        "exec.meta.removemountstubs.recursive",
        "exec.secretenv",
        "exec.validexitcode",
    ];
    /// A process's control group.
    pub const EXEC_CGROUP: &[&str] = &["exec.meta.cgroup.parent", "exec.cgroup"];
    /// Limits of a process's resources.
    pub const EXEC_RESOURCES: &[&str] = &["exec.meta.linux.resources"];
    /// Devices allowed to an insecure process.
    pub const EXEC_INSECURE_DEVICES: &[&str] = &["exec.meta.security.devices.v1"];
    /// Devices by their CDI names.
    pub const EXEC_CDI: &[&str] = &["exec.meta.cdi"];
    /// A process's network behind a recording proxy.
    pub const EXEC_NETWORK_PROXY: &[&str] = &["exec.meta.network.proxy"];
    /// A process's mounts.
    pub const EXEC_MOUNT: &[&str] = &[
        "exec.mount.bind",
        "exec.mount.bind.readwrite-nooutput",
        "exec.mount.cache",
        "exec.mount.cache.sharing",
        "exec.mount.selector",
        "exec.mount.tmpfs",
        "exec.mount.tmpfs.size",
        "exec.mount.secret",
        "exec.mount.ssh",
        "exec.mount.cache.content",
    ];
    /// Changes to a tree.
    pub const FILE: &[&str] = &[
        "file.base",
        "file.rm.wildcard",
        "file.rm.nofollowsymlink",
        "file.copy.includeexcludepatterns",
        "file.copy.requiredpaths",
        "file.copy.alwaysreplaceexistingdestpaths",
        "file.copy.modestring",
        "file.symlink.create",
    ];
    /// Trees laid over each other.
    pub const MERGE: &[&str] = &["mergeop"];
    /// What one tree has over another.
    pub const DIFF: &[&str] = &["diffop"];
    /// Vertices that only hand on their inputs.
    pub const PASSTHROUGH: &[&str] = &["passthroughop"];
    /// What may be said of any vertex.
    pub const VERTEX: &[&str] =
        &["constraints", "platform", "meta.ignorecache", "meta.description", "meta.exportcache"];
    /// The cache of GitHub Actions.
    pub const CACHE_GHA: &[&str] = &["cache.gha"];
    /// Caches in S3.
    pub const CACHE_S3: &[&str] = &["cache.s3"];
    /// Caches in Azure's blob storage.
    pub const CACHE_AZBLOB: &[&str] = &["cache.azblob"];
    /// Exporters of images.
    pub const EXPORT: &[&str] = &[
        "exporter.image.annotations",
        "exporter.image.attestations",
        "exporter.sourcedateepoch",
        "exporter.multiple",
    ];
    /// Exporters that the client chooses when the result is known.
    pub const EXPORT_SESSION: &[&str] = &["exporter.session"];
    /// Rules about sources, given with the request.
    pub const POLICY: &[&str] = &["source.policy"];
    /// Rules about sources, asked for over a session.
    pub const POLICY_SESSION: &[&str] = &["source.policy.session"];
    /// Limits of space in `Prune`.
    pub const PRUNE_SPACE: &[&str] = &["gc.freespacefilter"];
    /// Filters in `ListenBuildHistory`.
    pub const HISTORY_FILTER: &[&str] = &["history.filter"];
}

/// Names of the list about the gateway's calls.
pub mod gateway {
    /// Solving, and returning what was solved.
    pub const SOLVE: &[&str] = &[
        "solve.base",
        "solve.inlinereturn",
        "return",
        "returnmap",
        "proto.refarray",
        "reference.output",
        "gateway.solve.metadata",
    ];
    /// Evaluating at once.
    pub const EVALUATE: &[&str] = &["gateway.solve.evaluate", "gateway.evaluate"];
    /// Configurations of images.
    pub const RESOLVE_IMAGE: &[&str] = &["resolveimage", "resolveimage.resolvemode"];
    /// Metadata of any source.
    pub const RESOLVE_SOURCE: &[&str] = &["source.metaresolver"];
    /// An image's attestations with its metadata.
    pub const RESOLVE_ATTESTATIONS: &[&str] = &["source.metaresolver.image.attestations"];
    /// Digests of a URL's content by other algorithms.
    pub const RESOLVE_HTTP_CHECKSUM: &[&str] = &["source.metaresolver.http.checksumrequest"];
    /// Files of results.
    pub const FILES: &[&str] = &["readfile", "readdir", "statfile"];
    /// Caches to look into.
    pub const IMPORT_CACHES: &[&str] = &["importcaches"];
    /// Inputs that the caller gave the frontend.
    pub const INPUTS: &[&str] = &["frontend.inputs"];
    /// Frontends that say what they can do.
    pub const FRONTEND_CAPS: &[&str] = &["frontend.caps"];
    /// Containers.
    pub const EXEC: &[&str] = &[
        "gateway.exec",
        "gateway.exec.extrahosts",
        "gateway.exec.secretenv",
        "gateway.exec.signals",
    ];
    /// Files of a container's mounts.
    pub const EXEC_FILES: &[&str] = &["gateway.exec.filesystem"];
    /// Warnings.
    pub const WARN: &[&str] = &["gateway.warnings"];
    /// Attestations among what is returned.
    pub const ATTESTATIONS: &[&str] = &["reference.attestations"];
}
