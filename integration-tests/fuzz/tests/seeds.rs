//! Every target on its seeds, and on thousands of changes to them that are the same at each run.

use std::fs;
use std::path::Path;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

const SEED: u64 = 20_26;

/// Tries `target` on its seeds as they are and `count` times changed.
fn try_target(name: &str, target: impl Fn(&[u8]), count: usize) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name);
    let mut files: Vec<_> =
        fs::read_dir(&dir).expect("seeds").map(|entry| entry.expect("a seed").path()).collect();
    files.sort();
    let seeds: Vec<_> = files.iter().map(|file| fs::read(file).expect("a seed")).collect();
    assert!(!seeds.is_empty(), "{} has no seeds", dir.display());
    for seed in &seeds {
        target(seed);
    }
    let mut random = StdRng::seed_from_u64(SEED);
    for _ in 0..count {
        target(&changed(&seeds, &mut random));
    }
}

/// A seed with up to eight changes.
fn changed(seeds: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = seeds.choose(random).expect("a seed").clone();
    for _ in 0..random.random_range(1..=8) {
        let at = random.random_range(0..=bytes.len());
        let length = random.random_range(0..=(bytes.len() - at).min(64));
        match random.random_range(0..6) {
            0 => drop(bytes.drain(at..at + length)),
            1 => {
                let copy = bytes[at..at + length].to_vec();
                let to = random.random_range(0..=bytes.len());
                bytes.splice(to..to, copy);
            }
            2 => {
                let other = seeds.choose(random).expect("a seed");
                let from = random.random_range(0..=other.len());
                let to = random.random_range(from..=other.len());
                bytes.splice(at..at + length, other[from..to].iter().copied());
            }
            3 => bytes.insert(at, *b"\\'\"`$#{}[]<-=,:/*!\n\r\0 ".choose(random).expect("a byte")),
            4 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            _ => bytes.insert(at, random.random()),
        }
    }
    bytes
}

#[test]
fn no_dockerfile_breaks_the_parser() {
    try_target("dockerfile", kiln_fuzz::dockerfile, 20_000);
}

#[test]
fn no_word_breaks_expansion() {
    try_target("expansion", kiln_fuzz::expansion, 10_000);
}

#[test]
fn no_mount_breaks_its_parser() {
    try_target("mount_options", kiln_fuzz::mount_options, 50_000);
}

#[test]
fn no_ignore_file_makes_a_walk_differ_from_its_patterns() {
    try_target("ignore_file", kiln_fuzz::ignore_file, 20_000);
}

#[test]
fn no_sender_of_files_gets_past_the_checks() {
    try_target("file_transfer", kiln_fuzz::file_transfer, 5_000);
}

#[test]
fn no_layer_touches_what_is_beside_it() {
    try_target("layer_archive", kiln_fuzz::layer_archive, 500);
}

#[test]
fn no_added_archive_touches_what_is_beside_it() {
    try_target("add_archive", kiln_fuzz::add_archive, 500);
}

#[test]
fn image_references_are_read_as_they_are_printed() {
    try_target("image_reference", kiln_fuzz::image_reference, 50_000);
}

#[cfg(feature = "cache")]
#[test]
fn no_imported_cache_breaks_its_reader() {
    try_target("cache_config", kiln_fuzz::cache_config, 20_000);
}
