//! The folders that every mailbox has, and their names in the languages of the users.

/// A language of a mailbox.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Locale {
    /// English.
    #[default]
    #[serde(rename = "en-US")]
    English,
    /// German.
    #[serde(rename = "de-DE")]
    German,
    /// French.
    #[serde(rename = "fr-FR")]
    French,
    /// Chinese, traditional characters.
    #[serde(rename = "zh-TW")]
    ChineseTraditional,
    /// Chinese, simplified characters.
    #[serde(rename = "zh-CN")]
    ChineseSimplified,
    /// Japanese.
    #[serde(rename = "ja-JP")]
    Japanese,
}

/// A folder that every mailbox has.
#[derive(Debug)]
pub struct DefaultFolder {
    /// The name that is the same in every language.
    pub well_known: Option<&'static str>,
    /// Well-known name of its parent.
    pub parent: &'static str,
    /// True if it is listed only on request.
    pub hidden: bool,
    /// Container class.
    pub class: &'static str,
    /// Its names, in the order of [`Locale::ALL`].
    names: [&'static str; 6],
}

impl Locale {
    /// Every locale.
    pub const ALL: [Self; 6] =
        [Self::English, Self::German, Self::French, Self::ChineseTraditional, Self::ChineseSimplified, Self::Japanese];

    /// Returns its name, such as `de-DE`.
    pub fn tag(self) -> &'static str {
        ["en-US", "de-DE", "fr-FR", "zh-TW", "zh-CN", "ja-JP"][self as usize]
    }

    /// Returns its English name for people.
    pub fn display_name(self) -> &'static str {
        [
            "English (United States)",
            "German (Germany)",
            "French (France)",
            "Chinese (Traditional, Taiwan)",
            "Chinese (Simplified, China)",
            "Japanese (Japan)",
        ][self as usize]
    }

    /// Returns the Windows name of the time zone of its users.
    pub fn time_zone(self) -> &'static str {
        [
            "Pacific Standard Time",
            "W. Europe Standard Time",
            "Romance Standard Time",
            "Taipei Standard Time",
            "China Standard Time",
            "Tokyo Standard Time",
        ][self as usize]
    }

    /// Returns the name of a default folder in this language.
    pub fn name(self, folder: &DefaultFolder) -> &'static str {
        folder.names[self as usize]
    }
}

const fn visible(well_known: &'static str, names: [&'static str; 6]) -> DefaultFolder {
    DefaultFolder { well_known: Some(well_known), parent: "msgfolderroot", hidden: false, class: "IPF.Note", names }
}

const fn inner(well_known: &'static str, parent: &'static str, names: [&'static str; 6]) -> DefaultFolder {
    DefaultFolder { well_known: Some(well_known), parent, hidden: false, class: "IPF.Note", names }
}

/// Returns a folder that programs keep under the contacts, with the same name in every language.
const fn machine_made(name: &'static str, class: &'static str) -> DefaultFolder {
    DefaultFolder { well_known: None, parent: "contacts", hidden: true, class, names: [name; 6] }
}

/// The default folders, parents before children. New mailboxes have no `clutter` and `scheduled`: asking for them gives
/// 404.
pub const DEFAULT_FOLDERS: &[DefaultFolder] = &[
    inner(
        "msgfolderroot",
        "root",
        [
            "Top of Information Store",
            "Oberste Ebene des Informationsspeichers",
            "Racine de la banque d'informations",
            "資訊儲存庫頂端",
            "信息存储顶部",
            "インフォメーション ストアの先頭",
        ],
    ),
    inner("searchfolders", "root", ["Finder", "Finder", "Finder", "Finder", "Finder", "Finder"]),
    DefaultFolder {
        well_known: Some("recoverableitemsroot"),
        parent: "root",
        hidden: true,
        class: "IPF.Note",
        names: ["Recoverable Items"; 6],
    },
    inner("recoverableitemsdeletions", "recoverableitemsroot", ["Deletions"; 6]),
    inner("recoverableitemspurges", "recoverableitemsroot", ["Purges"; 6]),
    inner("recoverableitemsversions", "recoverableitemsroot", ["Versions"; 6]),
    visible("inbox", ["Inbox", "Posteingang", "Boîte de réception", "收件匣", "收件箱", "受信トレイ"]),
    visible("drafts", ["Drafts", "Entwürfe", "Brouillons", "草稿", "草稿", "下書き"]),
    visible(
        "sentitems",
        ["Sent Items", "Gesendete Elemente", "Éléments envoyés", "寄件備份", "已发送邮件", "送信済みアイテム"],
    ),
    visible(
        "deleteditems",
        ["Deleted Items", "Gelöschte Elemente", "Éléments supprimés", "刪除的郵件", "已删除邮件", "削除済みアイテム"],
    ),
    visible("junkemail", ["Junk Email", "Junk-E-Mail", "Courrier indésirable", "垃圾郵件", "垃圾邮件", "迷惑メール"]),
    visible("outbox", ["Outbox", "Postausgang", "Boîte d'envoi", "寄件匣", "发件箱", "送信トレイ"]),
    visible("archive", ["Archive", "Archiv", "Archive", "封存", "存档", "アーカイブ"]),
    visible(
        "conversationhistory",
        [
            "Conversation History",
            "Aufgezeichnete Unterhaltungen",
            "Historique des conversations",
            "交談記錄",
            "对话历史记录",
            "会話の履歴",
        ],
    ),
    visible(
        "syncissues",
        [
            "Sync Issues",
            "Synchronisierungsprobleme",
            "Problèmes de synchronisation",
            "同步處理問題",
            "同步问题",
            "同期の失敗",
        ],
    ),
    inner("conflicts", "syncissues", ["Conflicts", "Konflikte", "Conflits", "衝突", "冲突", "競合"]),
    inner(
        "localfailures",
        "syncissues",
        ["Local Failures", "Lokale Fehler", "Défaillances locales", "本機失敗", "本地故障", "ローカルの失敗"],
    ),
    inner(
        "serverfailures",
        "syncissues",
        ["Server Failures", "Serverfehler", "Défaillances du serveur", "伺服器失敗", "服务器故障", "サーバーの失敗"],
    ),
    DefaultFolder {
        well_known: Some("contacts"),
        parent: "msgfolderroot",
        hidden: false,
        class: "IPF.Contact",
        names: ["Contacts", "Kontakte", "Contacts", "連絡人", "联系人", "連絡先"],
    },
    machine_made("Recipient Cache", "IPF.Contact.RecipientCache"),
    machine_made("GAL Contacts", "IPF.Contact.GalContacts"),
    DefaultFolder {
        well_known: Some("calendar"),
        parent: "msgfolderroot",
        hidden: false,
        class: "IPF.Appointment",
        names: ["Calendar", "Kalender", "Calendrier", "行事曆", "日历", "予定表"],
    },
    DefaultFolder {
        well_known: Some("tasks"),
        parent: "msgfolderroot",
        hidden: false,
        class: "IPF.Task",
        names: ["Tasks", "Aufgaben", "Tâches", "工作", "任务", "タスク"],
    },
    // The list that shows flagged messages as tasks. No item is in it.
    DefaultFolder {
        well_known: None,
        parent: "msgfolderroot",
        hidden: true,
        class: "IPF.Task.Flagged",
        names: [
            "Flagged Emails",
            "Gekennzeichnete E-Mails",
            "E-mails avec indicateur",
            "已標幟的電子郵件",
            "标记的电子邮件",
            "フラグを設定したメール",
        ],
    },
    // Copies of chat messages. A client that lists messages by folder does not see them.
    DefaultFolder {
        well_known: None,
        parent: "root",
        hidden: true,
        class: "IPF.SkypeTeams.Message",
        names: ["TeamsMessagesData"; 6],
    },
    DefaultFolder {
        well_known: None,
        parent: "msgfolderroot",
        hidden: true,
        class: "IPF.Note",
        names: ["PersonMetadata"; 6],
    },
];

/// Well-known names that only the simulator uses: Graph has no names for these folders.
pub const UNNAMED: &[&str] = &["recoverableitemsroot", "recoverableitemspurges", "recoverableitemsversions"];
