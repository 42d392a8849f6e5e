//! Office documents, pictures and small text files, as people attach and store them.
//!
//! Office documents are zip files of deflated XML with pictures inside. PDFs hold deflated streams. Pictures are
//! already compressed. So attachments hardly shrink, and it matters to store each of them only once. The files are well
//! formed enough to be unpacked, but were never opened in a word processor.

use std::io::{Read, Write};

use anyhow::{Context, Result, ensure};
use flate2::{Compression, Crc, read::DeflateDecoder, write::DeflateEncoder, write::ZlibEncoder};

use crate::rng::Rng;
use crate::words::{Language, Vocabulary};

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A text document (zip).
    Docx,
    /// A spreadsheet (zip).
    Xlsx,
    /// Slides (zip, mostly pictures).
    Pptx,
    /// A page description with deflated streams.
    Pdf,
    /// A photograph: not compressible at all.
    Jpeg,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Docx, Self::Xlsx, Self::Pptx, Self::Pdf, Self::Jpeg];

    /// Returns the file name extension.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Docx => "docx",
            Self::Xlsx => "xlsx",
            Self::Pptx => "pptx",
            Self::Pdf => "pdf",
            Self::Jpeg => "jpg",
        }
    }

    /// Returns the media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Docx => "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
            Self::Xlsx => "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
            Self::Pptx => "application/vnd.openxmlformats-officedocument.presentationml.presentation",
            Self::Pdf => "application/pdf",
            Self::Jpeg => "image/jpeg",
        }
    }

    /// Returns a new file of about `size` bytes (at least a few kilobytes).
    pub fn generate(self, vocabulary: &Vocabulary, rng: &mut Rng, language: Language, size: usize) -> Vec<u8> {
        // First deflated XML, then pictures until the file has the requested size.
        match self {
            Self::Docx => {
                let xml = docx_xml(vocabulary, rng, language, size * 5 / 2);
                office(rng, size, "word/document.xml", &xml)
            }
            Self::Xlsx => {
                let xml = xlsx_xml(rng, size * 4);
                office(rng, size, "xl/worksheets/sheet1.xml", &xml)
            }
            Self::Pptx => {
                let xml = docx_xml(vocabulary, rng, language, size / 2);
                office(rng, size, "ppt/slides/slide1.xml", &xml)
            }
            Self::Pdf => pdf(vocabulary, rng, language, size),
            Self::Jpeg => jpeg(rng, size),
        }
    }
}

/// Returns the size of the `nth` document: 20 KB to 2 MB; each doubling of the size is half as frequent.
///
/// The doublings come in a fixed order (every second document is small, every fourth twice as large, and so on). A few
/// large files decide the size of a tenant; if sizes were drawn freely, tenants of different seeds would differ in size
/// by a third.
pub fn heavy_tailed_size(rng: &mut Rng, nth: u64) -> usize {
    let octave = 20_000_u64 << nth.trailing_ones().min(6);
    rng.between(octave, octave * 2).min(2_000_000) as usize
}

fn docx_xml(vocabulary: &Vocabulary, rng: &mut Rng, language: Language, size: usize) -> String {
    let mut xml = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\r\n<w:document xmlns:w=\"http://schemas.\
         openxmlformats.org/wordprocessingml/2006/main\"><w:body>",
    );
    while xml.len() < size.max(2_000) {
        let sentences = rng.between(2, 9);
        let text = vocabulary.paragraph(rng, language, sentences);
        xml.push_str(&docx_paragraph(rng, &text));
    }
    xml + "</w:body></w:document>"
}

fn docx_paragraph(rng: &mut Rng, text: &str) -> String {
    let (id, run) = (rng.hex(8), rng.hex(8));
    format!(
        "<w:p w14:paraId=\"{id}\" w:rsidR=\"00{run}\"><w:pPr><w:spacing w:after=\"120\"/></w:pPr><w:r><w:rPr><w:lang \
         w:val=\"en-US\"/></w:rPr><w:t xml:space=\"preserve\">{text}</w:t></w:r></w:p>"
    )
}

fn xlsx_xml(rng: &mut Rng, size: usize) -> String {
    let mut xml = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\r\n<worksheet xmlns=\"http://schemas.\
         openxmlformats.org/spreadsheetml/2006/main\"><sheetData>",
    );
    let mut row = 0;
    while xml.len() < size.max(2_000) {
        row += 1;
        xml.push_str(&format!("<row r=\"{row}\">"));
        for column in ["A", "B", "C", "D", "E", "F"] {
            let (whole, cents) = (rng.below(90_000), rng.below(100));
            xml.push_str(&format!("<c r=\"{column}{row}\" s=\"1\"><v>{whole}.{cents:02}</v></c>"));
        }
        xml.push_str("</row>");
    }
    xml + "</sheetData></worksheet>"
}

fn office(rng: &mut Rng, size: usize, main: &str, xml: &str) -> Vec<u8> {
    const CONTENT_TYPES: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"yes\"?>\r\n<Types xmlns=\
        \"http://schemas.openxmlformats.org/package/2006/content-types\"><Default Extension=\"rels\" ContentType=\
        \"application/vnd.openxmlformats-package.relationships+xml\"/><Default Extension=\"xml\" ContentType=\
        \"application/xml\"/><Default Extension=\"jpeg\" ContentType=\"image/jpeg\"/></Types>";
    let mut entries = vec![
        ZipEntry::deflated("[Content_Types].xml", CONTENT_TYPES.as_bytes()),
        ZipEntry::deflated(main, xml.as_bytes()),
    ];
    let folder = main.split('/').next().expect("split yields at least one part");
    let mut room = size.saturating_sub(entries.iter().map(|entry| entry.data.len() + 120).sum());
    let mut number = 1;
    while room > 3_000 {
        let picture = jpeg(rng, room.min(250_000));
        room -= picture.len().min(room);
        entries.push(ZipEntry::stored(&format!("{folder}/media/image{number}.jpeg"), picture));
        number += 1;
    }
    zip(&entries)
}

fn pdf(vocabulary: &Vocabulary, rng: &mut Rng, language: Language, size: usize) -> Vec<u8> {
    let mut out = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n".to_vec();
    let mut offsets = Vec::new();
    while out.len() + 500 < size {
        offsets.push(out.len());
        let number = offsets.len();
        let room = size - out.len();
        let (stream, filter) = if number % 3 == 0 {
            (jpeg(rng, room.min(120_000)), "/Subtype /Image /Filter /DCTDecode")
        } else {
            let mut page = String::from("BT /F1 11 Tf\n");
            while page.len() < (room * 3).min(60_000) {
                let (x, y) = (rng.between(40, 90), rng.between(40, 800));
                let line = vocabulary.sentence(rng, language);
                page.push_str(&format!("1 0 0 1 {x}.{} {y} Tm [({line})] TJ\n", rng.below(1000)));
            }
            (zlib(page.as_bytes()), "/Filter /FlateDecode")
        };
        let length = stream.len();
        out.extend_from_slice(format!("{number} 0 obj\n<< /Length {length} {filter} >>\nstream\n").as_bytes());
        out.extend_from_slice(&stream);
        out.extend_from_slice(b"\nendstream\nendobj\n");
    }
    let start = out.len();
    out.extend_from_slice(format!("xref\n0 {}\n0000000000 65535 f \n", offsets.len() + 1).as_bytes());
    for offset in &offsets {
        out.extend_from_slice(format!("{offset:010} 00000 n \n").as_bytes());
    }
    let id = rng.hex(32);
    let trailer =
        format!("trailer\n<< /Size {} /ID [<{id}> <{id}>] >>\nstartxref\n{start}\n%%EOF\n", offsets.len() + 1);
    out.extend_from_slice(trailer.as_bytes());
    out
}

/// Returns bytes with the markers and the entropy of a JPEG: a header, quantisation tables, then coded data.
fn jpeg(rng: &mut Rng, size: usize) -> Vec<u8> {
    let mut out = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x01\x00\x60\x00\x60\x00\x00\xff\xdb\x00\x43\x00".to_vec();
    out.extend((0..64).map(|position: u8| 8 + position / 2));
    out.extend_from_slice(b"\xff\xda\x00\x0c\x03\x01\x00\x02\x11\x03\x11\x00\x3f\x00");
    for byte in rng.bytes(size.saturating_sub(out.len() + 2)) {
        out.push(byte);
        if byte == 0xff {
            out.push(0); // escape 0xff in coded data, or it would be a marker
        }
    }
    out.extend_from_slice(b"\xff\xd9");
    out
}

/// Returns a company logo: a small PNG of random bars in a few colours, about 1.3 KB.
pub fn logo(rng: &mut Rng) -> Vec<u8> {
    const SIDE: u32 = 72;
    let mut pixels = Vec::new();
    for _ in 0..SIDE {
        pixels.push(0);
        let noise = rng.bytes(14);
        pixels.extend((0..SIDE as usize).map(|x| noise[x / 6] & 0x1f));
    }
    let mut header = Vec::new();
    header.extend_from_slice(&SIDE.to_be_bytes());
    header.extend_from_slice(&SIDE.to_be_bytes());
    header.extend_from_slice(&[8, 0, 0, 0, 0]);
    let mut out = b"\x89PNG\r\n\x1a\n".to_vec();
    for (name, data) in [(b"IHDR", header), (b"IDAT", zlib(&pixels)), (b"IEND", Vec::new())] {
        let mut crc = Crc::new();
        crc.update(name);
        crc.update(&data);
        out.extend_from_slice(&(data.len() as u32).to_be_bytes());
        out.extend_from_slice(name);
        out.extend_from_slice(&data);
        out.extend_from_slice(&crc.sum().to_be_bytes());
    }
    out
}

/// Returns a small text file and its extension: notes, tables or settings.
pub fn small_text(vocabulary: &Vocabulary, rng: &mut Rng, language: Language) -> (Vec<u8>, &'static str) {
    let size = 400_usize << rng.geometric(6);
    let mut text = String::new();
    let extension = *rng.pick(&["md", "txt", "csv", "json", "md"]);
    match extension {
        "csv" => {
            text.push_str("date;customer;item;amount\r\n");
            while text.len() < size {
                let (month, day, amount) = (rng.between(1, 12), rng.between(1, 28), rng.below(1_000_000));
                let (customer, item) = (vocabulary.word(rng, language), rng.hex(6));
                text.push_str(&format!("2026-{month:02}-{day:02};{customer};{item};{amount}\r\n"));
            }
        }
        "json" => {
            while text.len() < size {
                let (id, name) = (rng.uuid(), vocabulary.title(rng, language));
                text.push_str(&format!("{{\"id\": \"{id}\", \"name\": \"{name}\", \"done\": {}}}\n", rng.chance(50)));
            }
        }
        _ => {
            text.push_str(&format!("# {}\n\n", vocabulary.title(rng, language)));
            while text.len() < size {
                let sentences = rng.between(1, 5);
                text.push_str(&vocabulary.paragraph(rng, language, sentences));
                text.push_str("\n\n");
            }
        }
    }
    (text.into_bytes(), extension)
}

/// Returns the docx with one more paragraph near its middle, as if somebody had edited it. The text is deflated again;
/// the pictures stay as they are.
///
/// # Errors
/// Fails if `docx` is not a zip file with a `word/document.xml` as this module writes it.
pub fn edit_docx(docx: &[u8], vocabulary: &Vocabulary, rng: &mut Rng, language: Language) -> Result<Vec<u8>> {
    let mut entries = unzip(docx)?;
    let document = entries.iter_mut().find(|entry| entry.name == "word/document.xml");
    let document = document.context("the file has no word/document.xml")?;
    let mut xml = String::new();
    DeflateDecoder::new(&document.data[..]).read_to_string(&mut xml).context("word/document.xml cannot be inflated")?;
    let middle = xml.len() / 2 + xml.bytes().skip(xml.len() / 2).position(|byte| byte == b'<').unwrap_or(0);
    let place =
        xml[middle..].find("<w:p ").map_or(xml.len() - "</w:body></w:document>".len(), |offset| middle + offset);
    let text = vocabulary.paragraph(rng, language, 4);
    xml.insert_str(place, &docx_paragraph(rng, &text));
    *document = ZipEntry::deflated("word/document.xml", xml.as_bytes());
    Ok(zip(&entries))
}

/// One file in a zip.
struct ZipEntry {
    name: String,
    method: u16,
    crc: u32,
    size: u32,
    data: Vec<u8>,
}

impl ZipEntry {
    fn deflated(name: &str, content: &[u8]) -> Self {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::new(6));
        encoder.write_all(content).expect("writing to memory cannot fail");
        let data = encoder.finish().expect("writing to memory cannot fail");
        Self { name: name.to_owned(), method: 8, crc: crc32(content), size: content.len() as u32, data }
    }

    fn stored(name: &str, data: Vec<u8>) -> Self {
        Self { name: name.to_owned(), method: 0, crc: crc32(&data), size: data.len() as u32, data }
    }

    /// Returns the 26 bytes that are the same in the local header and in the central directory.
    fn common(&self) -> Vec<u8> {
        const DOS_TIME: u32 = 0x5c21_0000; // 2026-01-01 00:00; office programs also write a fixed date
        let mut out = Vec::new();
        for number in [20, 0, self.method] {
            out.extend_from_slice(&u16::to_le_bytes(number));
        }
        for number in [DOS_TIME, self.crc, self.data.len() as u32, self.size, self.name.len() as u32] {
            out.extend_from_slice(&u32::to_le_bytes(number));
        }
        out
    }
}

fn zip(entries: &[ZipEntry]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        directory.extend_from_slice(b"PK\x01\x02\x14\x00");
        directory.extend_from_slice(&entry.common());
        directory.extend_from_slice(&[0; 10]);
        directory.extend_from_slice(&(out.len() as u32).to_le_bytes());
        directory.extend_from_slice(entry.name.as_bytes());
        out.extend_from_slice(b"PK\x03\x04");
        out.extend_from_slice(&entry.common());
        out.extend_from_slice(entry.name.as_bytes());
        out.extend_from_slice(&entry.data);
    }
    let (start, count) = (out.len() as u32, entries.len() as u16);
    out.extend_from_slice(&directory);
    out.extend_from_slice(b"PK\x05\x06\0\0\0\0");
    out.extend_from_slice(&[count.to_le_bytes(), count.to_le_bytes()].concat());
    out.extend_from_slice(&(directory.len() as u32).to_le_bytes());
    out.extend_from_slice(&start.to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    out
}

/// Reads a zip file that [`zip`] wrote, through its local headers.
fn unzip(zip: &[u8]) -> Result<Vec<ZipEntry>> {
    let mut entries = Vec::new();
    let mut rest = zip;
    while let Some(header) = rest.strip_prefix(b"PK\x03\x04") {
        ensure!(header.len() >= 26, "the zip ends within a header");
        let u16_at = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let name_end = 26 + u32_at(22) as usize;
        let data_end = name_end + u32_at(14) as usize;
        ensure!(header.len() >= data_end, "the zip ends within an entry");
        entries.push(ZipEntry {
            name: String::from_utf8_lossy(&header[26..name_end]).into_owned(),
            method: u16_at(4),
            crc: u32_at(10),
            size: u32_at(18),
            data: header[name_end..data_end].to_vec(),
        });
        rest = &header[data_end..];
    }
    Ok(entries)
}

fn zlib(content: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(content).expect("writing to memory cannot fail");
    encoder.finish().expect("writing to memory cannot fail")
}

fn crc32(content: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(content);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_have_the_size_that_was_asked() {
        let vocabulary = Vocabulary::new(1);
        for kind in Kind::ALL {
            for size in [20_000, 300_000] {
                let made = kind.generate(&vocabulary, &mut Rng::new(3), Language::English, size).len();
                assert!(made > size * 7 / 10 && made < size * 14 / 10, "{kind:?} of {size} bytes has {made}");
            }
        }
    }

    #[test]
    fn an_edited_document_keeps_its_pictures_and_most_of_its_text() {
        let vocabulary = Vocabulary::new(1);
        let mut rng = Rng::new(3);
        let before = Kind::Docx.generate(&vocabulary, &mut rng, Language::German, 90_000);
        let after = edit_docx(&before, &vocabulary, &mut rng, Language::German).expect("an edited document");
        assert_ne!(before, after);
        let (before, after) = (unzip(&before).expect("a zip"), unzip(&after).expect("a zip"));
        assert_eq!(before.len(), after.len());
        for (old, new) in before.iter().zip(&after).filter(|(old, _)| old.name.contains("media")) {
            assert_eq!((&old.data, old.crc), (&new.data, new.crc));
        }
        let text = |entries: &[ZipEntry]| {
            let mut xml = String::new();
            DeflateDecoder::new(&entries[1].data[..]).read_to_string(&mut xml).expect("deflated text");
            assert_eq!(crc32(xml.as_bytes()), entries[1].crc);
            xml
        };
        let (old, new) = (text(&before), text(&after));
        assert!(new.len() > old.len() && new.ends_with("</w:body></w:document>"));
        assert_eq!(new.matches("<w:p ").count(), old.matches("<w:p ").count() + 1);
    }
}
