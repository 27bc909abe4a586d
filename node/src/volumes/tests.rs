use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use super::*;

fn entry(kind: EntryType, path: &str, link: &str) -> Vec<u8> {
    let mut header = Header::new_gnu();
    // As a hostile writer would: the library checks what it is given.
    let raw = header.as_mut_bytes();
    raw[..path.len()].copy_from_slice(path.as_bytes());
    raw[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
    header.set_cksum();
    let mut builder = Builder::new(Vec::new());
    builder.append(&header, std::io::empty()).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn what_is_packed_comes_out_as_it_was() {
    let (from, to) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let deep = "d".repeat(120);
    fs::create_dir_all(from.path().join(&deep).join("empty")).unwrap();
    fs::write(from.path().join(&deep).join("x".repeat(90)), b"content").unwrap();
    fs::write(from.path().join("run"), b"#!/bin/sh\n").unwrap();
    let mode = fs::Permissions::from_mode(0o750);
    fs::set_permissions(from.path().join("run"), mode).unwrap();
    symlink("run", from.path().join("link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(from.path().join("socket")).unwrap();
    let mut bytes = Vec::new();
    assert_eq!(pack(from.path(), &mut bytes).unwrap(), 1, "the socket");
    unpack(&bytes[..], to.path()).unwrap();
    let content = fs::read(to.path().join(&deep).join("x".repeat(90))).unwrap();
    assert_eq!(content, b"content");
    assert!(to.path().join(&deep).join("empty").is_dir());
    let mode = fs::metadata(to.path().join("run")).unwrap().permissions();
    assert_eq!(mode.mode() & 0o7777, 0o750);
    let link = fs::read_link(to.path().join("link")).unwrap();
    assert_eq!(link.to_str(), Some("run"));
    let mut again = Vec::new();
    fs::remove_file(from.path().join("socket")).unwrap();
    pack(from.path(), &mut again).unwrap();
    assert_eq!(bytes, again, "the same content gives the same archive");
}

#[test]
fn what_reaches_outside_is_refused() {
    let outside = TempDir::new().unwrap();
    let there = outside.path().join("there");
    let absolute = there.to_str().unwrap();
    let cases = [
        (EntryType::Regular, "../there", ""),
        (EntryType::Regular, "a/../../there", ""),
        (EntryType::Regular, absolute, ""),
        (EntryType::Directory, "..", ""),
        (EntryType::Symlink, "link", "/etc"),
        (EntryType::Symlink, "a/link", "../../etc"),
        (EntryType::Symlink, "link", ".."),
        (EntryType::Link, "link", "/etc/passwd"),
        (EntryType::Link, "link", "../../etc/passwd"),
        (EntryType::Char, "null", ""),
        (EntryType::Block, "disk", ""),
        (EntryType::Fifo, "pipe", ""),
    ];
    for (kind, path, link) in cases {
        let root = outside.path().join("root");
        fs::create_dir_all(&root).unwrap();
        let refused = unpack(&entry(kind, path, link)[..], &root);
        assert!(refused.is_err(), "{kind:?} {path} -> {link}");
        assert!(!there.exists(), "{kind:?} {path} -> {link}");
        fs::remove_dir_all(&root).unwrap();
    }
    let root = outside.path().join("root");
    fs::create_dir_all(&root).unwrap();
    unpack(&entry(EntryType::Symlink, "a/link", "../b")[..], &root).unwrap();
}

#[test]
fn damaged_archives_are_errors() {
    let root = TempDir::new().unwrap();
    let good = entry(EntryType::Regular, "a", "");
    assert!(unpack(&good[..300], root.path()).is_err());
    let noise: Vec<u8> = (0..4_096u32).map(|n| (n * 7 % 251) as u8).collect();
    assert!(unpack(&noise[..], root.path()).is_err());
}

#[test]
fn data_comes_into_its_place_and_what_was_there_goes() {
    let root = TempDir::new().unwrap();
    let place = root.path().join("shop").join("data");
    for content in ["one", "two"] {
        let new = scratch(root.path()).unwrap();
        fs::write(new.join("file"), content).unwrap();
        put_in_place(root.path(), &new, &place).unwrap();
        let mut found = String::new();
        let mut file = fs::File::open(place.join("file")).unwrap();
        file.read_to_string(&mut found).unwrap();
        assert_eq!(found, content);
    }
    let left = fs::read_dir(root.path().join(".scratch")).unwrap().count();
    assert_eq!(left, 0, "nothing is left behind");
}
