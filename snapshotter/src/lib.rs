//! Layers as directories: mounts as data, diff, apply, and safe file trees.
