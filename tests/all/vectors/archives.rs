//! Golden bytes of archives that were taken apart.

use super::{chunk, file, pin};
use strongroom::content::mime::Base64Form;
use strongroom::format::entry::{Content, Entry, NodeRef, Segment};
use strongroom::format::id::NodeId;
use strongroom::format::recipe::{self, Piece, Recipe, check_of};

/// Returns an archive, and a mail with an archive in it.
fn archives() -> Vec<Segment> {
    let form = Base64Form { line_len: 76, crlf: true, final_eol: true };
    let listed = Segment::List { len: 90_000, node: NodeRef { id: NodeId([4; 32]), hint: None } };
    let small = || Segment::Deflated { len: 5152, recipe_len: 40, material: vec![Segment::Raw(vec![chunk(11, 5500)])] };
    let large = Segment::Deflated { len: 60_000, recipe_len: 400, material: vec![listed] };
    let text = Segment::Base64Of { form, decoded_len: 5152, segments: vec![small()] };
    vec![small(), large, text]
}

#[test]
fn archives_that_were_taken_apart() {
    let entry = file("document.docx", Content { segments: archives() });
    let encoded = entry.encode();
    pin("entry-archive", &encoded);
    let read = Entry::read(&mut strongroom::format::cbor::Reader::new(&encoded)).expect("it is an entry");
    assert_eq!(read, entry);
    assert_eq!(read.size(), 5152 + 60_000 + 7054);
    assert_eq!(read.content().expect("a file").segments.iter().flat_map(Segment::chunks).count(), 2);

    // Segments of these kinds do not nest any deeper.
    let [small, _, text] = archives().try_into().expect("three");
    let form = Base64Form { line_len: 0, crlf: false, final_eol: false };
    let base64 = |segment| Segment::Base64Of { form, decoded_len: 1, segments: vec![segment] };
    let apart = |segment| Segment::Deflated { len: 1, recipe_len: 1, material: vec![segment] };
    let plain = Segment::Base64 { form, decoded_len: 1, chunks: vec![chunk(1, 1)] };
    let endless = Segment::List { len: u64::MAX, node: NodeRef { id: NodeId([4; 32]), hint: None } };
    let refused =
        [base64(text.clone()), base64(plain.clone()), apart(small), apart(text), apart(plain), base64(endless)];
    for segment in refused {
        let encoded = file("x", Content { segments: vec![segment.clone()] }).encode();
        assert!(Entry::read(&mut strongroom::format::cbor::Reader::new(&encoded)).is_err(), "{segment:?}");
    }

    let pieces = [
        Piece::Loose { len: 30 },
        Piece::Stream { len: 100, plain_len: 400, corrections_len: 7, check: check_of(b"stream") },
        Piece::Body { len: 5000 },
        Piece::Loose { len: 22 },
    ];
    let recipe = recipe::encode(&pieces);
    pin("recipe", &recipe);
    Recipe::decode(&recipe, 5152, recipe.len() as u64 + 7 + 52 + 5400).expect("a recipe");
}
