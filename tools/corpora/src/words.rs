//! Text in four languages, from a made-up vocabulary whose word frequencies follow Zipf's law.
//!
//! Only two properties of text matter to a backup: how well it compresses, and which bytes it contains. Words drawn by
//! Zipf's law compress like prose (about 3:1), and German, French and Chinese need UTF-8.

use crate::rng::Rng;

/// A word that occurs in about one message in four hundred, to measure searches with few results.
pub const NEEDLE: &str = "heliograph";

/// One in this many messages begins with a sentence about [`NEEDLE`].
pub const NEEDLE_ONE_IN: u64 = 400;

const ENGLISH: &str = "the of to and a in is for that on it with as be this we are by will from at or have an was not \
    you your our please can if has which all they been their would there more any what when should meeting project \
    report team time week customer review budget draft contract update server access quarter delivery invoice order";
const GERMAN: &str = "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden \
    aus er hat dass sie nach wird bei einer um am sind noch wie einem über einen so zum war haben nur oder aber vor zur \
    bis mehr durch Besprechung Änderung Prüfung Auftrag Rechnung Angebot Lösung Übersicht Termin Vertrag möglich";
const FRENCH: &str = "de la le et les des en un du une que est pour qui dans a par plus pas au sur ne se ce il sont avec \
    être à ou cette son mais comme nous vous été réunion équipe projet délai contrat réponse marché qualité après très";
const CHINESE: &str = "的 一 是 在 不 了 有 和 我们 他们 可以 会议 项目 报告 客户 合同 预算 计划 时间 问题 需要 请 确认 \
    更新 文件 附件 下周 今天 明天 部门 系统 数据 安全 采购 订单 发票 培训 质量 进度 完成 讨论 批准";

/// A language in which the tenant's people write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// The language of most messages.
    English,
    /// With umlauts.
    German,
    /// With accents.
    French,
    /// Three bytes per character, no spaces.
    Chinese,
}

struct Lexicon {
    words: Vec<String>,
    /// For each word, the sum of the weights up to and including it.
    cumulative: Vec<u64>,
    space: &'static str,
    full_stop: &'static str,
}

/// The words of a tenant, generated from its seed.
pub struct Vocabulary {
    lexicons: [Lexicon; 4],
}

impl Vocabulary {
    /// Returns the vocabulary for `seed`.
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::for_purpose(seed, "vocabulary");
        const CONSONANTS: &[&str] =
            &["b", "c", "d", "f", "g", "l", "m", "n", "p", "r", "s", "t", "v", "st", "tr", "pl"];
        let latin = |rng: &mut Rng, vowels: &[&str], endings: &[&str]| {
            let mut word = String::new();
            for _ in 0..rng.between(1, 3) {
                word.push_str(rng.pick::<&str>(CONSONANTS));
                word.push_str(rng.pick::<&str>(vowels));
            }
            word + rng.pick::<&str>(endings)
        };
        let plain = ["a", "e", "i", "o", "u", "ea", "ou"];
        let english = Lexicon::new(ENGLISH, 6_000, " ", ". ", || {
            latin(&mut rng, &plain, &["n", "r", "s", "t", "ing", "ed", "tion", "ment", "ly", ""])
        });
        let german = Lexicon::new(GERMAN, 4_000, " ", ". ", || {
            latin(&mut rng, &["a", "e", "i", "ei", "ä", "ö", "ü"], &["en", "er", "ung", "heit", "lich", "ße", "t"])
        });
        let french = Lexicon::new(FRENCH, 4_000, " ", ". ", || {
            latin(&mut rng, &["a", "e", "é", "è", "ou", "oi", "ê"], &["ment", "tion", "é", "eur", "age", "ique"])
        });
        let chinese = Lexicon::new(CHINESE, 3_000, "", "。", || {
            let character = |rng: &mut Rng| char::from_u32(0x4e00 + rng.below(0x0e00) as u32).expect("a CJK character");
            (0..rng.between(1, 3)).map(|_| character(&mut rng)).collect()
        });
        Self { lexicons: [english, german, french, chinese] }
    }

    /// Returns a word.
    pub fn word(&self, rng: &mut Rng, language: Language) -> &str {
        self.lexicon(language).word(rng)
    }

    /// Returns a sentence of 4 to 18 words.
    pub fn sentence(&self, rng: &mut Rng, language: Language) -> String {
        let lexicon = self.lexicon(language);
        let mut sentence = capitalised(lexicon.word(rng));
        for position in 1..rng.between(4, 18) {
            sentence.push_str(lexicon.space);
            sentence.push_str(lexicon.word(rng));
            if position % 6 == 5 && language != Language::Chinese && rng.chance(40) {
                sentence.push(',');
            }
        }
        sentence + lexicon.full_stop.trim_end()
    }

    /// Returns a paragraph of `sentences` sentences in one line.
    pub fn paragraph(&self, rng: &mut Rng, language: Language, sentences: u64) -> String {
        let sentences: Vec<String> = (0..sentences).map(|_| self.sentence(rng, language)).collect();
        sentences.join(if language == Language::Chinese { "" } else { " " })
    }

    /// Returns a title of 1 to 4 words, for subjects and file names.
    pub fn title(&self, rng: &mut Rng, language: Language) -> String {
        let lexicon = self.lexicon(language);
        let words: Vec<String> = (0..rng.between(1, 4)).map(|_| capitalised(lexicon.rare_word(rng))).collect();
        words.join(lexicon.space)
    }

    fn lexicon(&self, language: Language) -> &Lexicon {
        &self.lexicons[language as usize]
    }
}

impl Lexicon {
    fn new(
        common: &str,
        count: usize,
        space: &'static str,
        full_stop: &'static str,
        mut coin: impl FnMut() -> String,
    ) -> Self {
        let mut words: Vec<String> = common.split_whitespace().map(str::to_owned).collect();
        words.extend((words.len()..count).map(|_| coin()));
        let weights = (0..words.len()).map(|rank| 1_000_000 / (rank as u64 + 3));
        let cumulative = weights.scan(0, |sum, weight| (*sum += weight, Some(*sum)).1).collect();
        Self { words, cumulative, space, full_stop }
    }

    fn word(&self, rng: &mut Rng) -> &str {
        let total = *self.cumulative.last().expect("a lexicon has words");
        let point = rng.below(total);
        &self.words[self.cumulative.partition_point(|&sum| sum <= point)]
    }

    /// Returns a word; all words are equally likely, so that titles differ.
    fn rare_word(&self, rng: &mut Rng) -> &str {
        rng.pick::<String>(&self.words)
    }
}

fn capitalised(word: &str) -> String {
    let mut characters = word.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_follows_the_seed_and_the_language() {
        let text = |seed, language| Vocabulary::new(seed).paragraph(&mut Rng::new(9), language, 20);
        assert_eq!(text(1, Language::English), text(1, Language::English));
        assert_ne!(text(1, Language::English), text(2, Language::English));
        assert!(text(1, Language::English).is_ascii());
        for language in [Language::German, Language::French, Language::Chinese] {
            assert!(!text(1, language).is_ascii());
        }
        assert!(!text(1, Language::English).contains(NEEDLE));
    }
}
