//! Which rooms may name which: imports point one way.

use std::path::Path;

/// Rooms from the lowest to the highest; those on a line do not name each other.
const LAYERS: [&[&str]; 7] = [&["api"], &["core"], &["sources", "telemetry"], &["notify"], &["operator"], &["server", "sim"], &["cli"]];

fn files(folder: &Path, take: &mut impl FnMut(&Path)) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, take);
        } else if path.extension().is_some_and(|end| end == "rs") {
            take(&path);
        }
    }
}

#[test]
fn no_room_names_one_above_it_or_beside_it() {
    let (mut seen, mut wrong) = (0, Vec::new());
    for (at, rooms) in LAYERS.iter().enumerate() {
        for room in *rooms {
            let above: Vec<_> = LAYERS[at..].concat().into_iter().filter(|other| other != room).collect();
            files(&Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).join(room), &mut |path| {
                seen += 1;
                let text = std::fs::read_to_string(path).unwrap();
                let named = above.iter().filter(|other| text.contains(&format!("crate::{other}::")));
                wrong.extend(named.map(|other| format!("{} names {other}", path.display())));
            });
        }
    }
    assert!(seen > 100, "{seen}");
    assert_eq!(wrong, [""; 0]);
}
