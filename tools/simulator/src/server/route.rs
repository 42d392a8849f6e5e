//! Parses the paths of Graph.
//!
//! Graph's paths are OData: names may be in any case, `users('id')` is the same as `users/id`, and an id is a single
//! segment whose characters are percent-encoded. Routing returns a [`Route`], which says what the request asks for and
//! whose data it concerns. Other modules decide who may ask, which budget the request counts against, and who answers
//! it.

use axum::http::Method;
use percent_encoding::percent_decode_str;

use super::operation::Operation;

/// Version of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `/v1.0`
    V1,
    /// `/beta`
    Beta,
}

impl Version {
    /// Returns its name in paths.
    pub fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1.0",
            Self::Beta => "beta",
        }
    }
}

/// The operation of a request, and what it applies to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Version of the API.
    pub version: Version,
    /// The operation.
    pub operation: Operation,
    /// Id or principal name of the user; `me` for the signed-in user, until the gate replaces it.
    pub user: Option<String>,
    /// Id or well-known name of the folder, for mail or for contacts; id of the calendar or of the task list.
    pub folder: Option<String>,
    /// Id of the group of calendars.
    pub group: Option<String>,
    /// Id of the message.
    pub message: Option<String>,
    /// Id of the contact.
    pub contact: Option<String>,
    /// Id of the event or of the occurrence.
    pub event: Option<String>,
    /// Id of the task.
    pub task: Option<String>,
    /// Id of the checklist item, the linked resource or the upload session of the task.
    pub part: Option<String>,
    /// Id of the attachment.
    pub attachment: Option<String>,
    /// The rest of the path: the property of `mailboxSettings`, the answer to a meeting, or the path inside an Exchange mailbox (first its id).
    pub rest: Vec<String>,
}

/// Why a path could not be routed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoRoute {
    /// It is not a path of Graph.
    NotGraph,
    /// Graph does not know this segment.
    UnknownSegment(String),
    /// The path exists, but not for this method.
    MethodNotAllowed,
}

/// Selects one of the operations for GET, POST, PATCH and DELETE.
type By<'a> = dyn Fn(Option<Operation>, Option<Operation>, Option<Operation>, Option<Operation>) -> Result<Operation, NoRoute>
    + 'a;

impl Route {
    /// Returns the route of `method` on `path` (still encoded, without query).
    ///
    /// # Errors
    /// [`NoRoute`] if there is none.
    pub fn parse(method: &Method, path: &str) -> Result<Self, NoRoute> {
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        let version = match segments.next() {
            Some("v1.0") => Version::V1,
            Some("beta") => Version::Beta,
            _ => return Err(NoRoute::NotGraph),
        };
        let raw: Vec<String> = segments.flat_map(key_form).collect();
        let lower: Vec<String> = raw.iter().map(|segment| segment.to_ascii_lowercase()).collect();
        let lower: Vec<&str> = lower.iter().map(String::as_str).collect();
        let mut route = Self {
            version,
            operation: Operation::Batch,
            user: None,
            folder: None,
            group: None,
            message: None,
            contact: None,
            event: None,
            task: None,
            part: None,
            attachment: None,
            rest: Vec::new(),
        };
        let of =
            |operation: Operation, allowed: bool| if allowed { Ok(operation) } else { Err(NoRoute::MethodNotAllowed) };
        let (get, post) = (method == Method::GET || method == Method::HEAD, method == Method::POST);
        route.operation = match lower.as_slice() {
            ["$batch"] => of(Operation::Batch, post),
            ["organization"] => of(Operation::ListOrganizations, get),
            ["subscribedskus"] => of(Operation::ListSkus, get),
            ["users"] => of(Operation::ListUsers, get),
            ["users", "delta" | "delta()"] => of(Operation::UsersDelta, get),
            ["users", "$count"] => of(Operation::CountUsers, get),
            ["directory", "deleteditems", "microsoft.graph.user"] => of(Operation::ListDeletedUsers, get),
            ["admin", "exchange", "mailboxes", _, ..] => {
                route.rest = raw[3..].to_vec();
                Ok(Operation::ExchangeMailbox)
            }
            ["me", rest @ ..] => {
                route.user = Some("me".to_owned());
                route.of_user(method, rest, &raw[1..])
            }
            ["users", _, rest @ ..] => {
                route.user = Some(raw[1].clone());
                route.of_user(method, rest, &raw[2..])
            }
            [other, ..] => Err(NoRoute::UnknownSegment((*other).to_owned())),
            [] => Err(NoRoute::UnknownSegment(String::new())),
        }?;
        Ok(route)
    }

    /// Routes the path after a user.
    fn of_user(&mut self, method: &Method, lower: &[&str], raw: &[String]) -> Result<Operation, NoRoute> {
        use Operation as O;
        let by = |get: Option<O>, post: Option<O>, patch: Option<O>, delete: Option<O>| {
            let operation = match *method {
                Method::GET | Method::HEAD => get,
                Method::POST => post,
                Method::PATCH => patch,
                Method::DELETE => delete,
                _ => None,
            };
            operation.ok_or(NoRoute::MethodNotAllowed)
        };
        match lower {
            [] => by(Some(O::GetUser), None, None, None),
            ["licensedetails"] => by(Some(O::ListLicenses), None, None, None),
            ["mailboxsettings", ..] => {
                self.rest = raw[1..].to_vec();
                by(Some(O::GetMailboxSettings), None, Some(O::UpdateMailboxSettings), None)
            }
            ["outlook", "mastercategories"] => by(Some(O::ListCategories), Some(O::CreateCategory), None, None),
            ["translateexchangeids"] => by(None, Some(O::TranslateIds), None, None),
            ["settings", "exchange"] => by(Some(O::GetExchangeSettings), None, None, None),
            ["sendmail"] => by(None, Some(O::SendMail), None, None),
            ["mailfolders"] => by(Some(O::ListFolders), Some(O::CreateFolder), None, None),
            ["mailfolders", "delta" | "delta()"] => by(Some(O::FoldersDelta), None, None, None),
            ["mailfolders", _, rest @ ..] => {
                self.folder = Some(raw[1].clone());
                match rest {
                    [] => by(Some(O::GetFolder), None, Some(O::UpdateFolder), Some(O::DeleteFolder)),
                    ["childfolders"] => by(Some(O::ListChildFolders), Some(O::CreateChildFolder), None, None),
                    // `mailFolders/{parent}/childFolders/{folder}/..` is `mailFolders/{folder}/..`.
                    ["childfolders", _, ..] => {
                        self.of_user(method, &[&["mailfolders"], &rest[1..]].concat(), &[&raw[..1], &raw[3..]].concat())
                    }
                    ["move"] => by(None, Some(O::MoveFolder), None, None),
                    ["copy"] => by(None, Some(O::CopyFolder), None, None),
                    ["permanentdelete"] => by(None, Some(O::PermanentlyDeleteFolder), None, None),
                    ["messagerules"] => by(Some(O::ListRules), Some(O::CreateRule), None, None),
                    ["messages", "delta" | "delta()"] => by(Some(O::MessagesDelta), None, None, None),
                    ["messages", ..] => self.of_messages(method, rest, &raw[2..], &by),
                    [other, ..] => Err(NoRoute::UnknownSegment((*other).to_owned())),
                }
            }
            ["messages", ..] => self.of_messages(method, lower, raw, &by),
            ["contactfolders" | "contacts", ..] => self.of_contacts(method, lower, raw, &by),
            ["calendars" | "calendar" | "calendargroups" | "events" | "calendarview", ..] => {
                self.of_calendars(method, lower, raw, &by)
            }
            ["todo", "lists", ..] => self.of_tasks(method, &lower[1..], &raw[1..], &by),
            [.., other] => Err(NoRoute::UnknownSegment((*other).to_owned())),
        }
    }

    /// Routes task lists and the path after them.
    fn of_tasks(&mut self, method: &Method, lower: &[&str], raw: &[String], by: &By<'_>) -> Result<Operation, NoRoute> {
        use Operation as O;
        match lower {
            ["lists"] => by(Some(O::ListTaskLists), Some(O::CreateTaskList), None, None),
            ["lists", "delta" | "delta()"] => by(Some(O::TaskListsDelta), None, None, None),
            ["lists", _, rest @ ..] => {
                self.folder = Some(raw[1].clone());
                match rest {
                    [] => by(Some(O::GetTaskList), None, Some(O::UpdateTaskList), Some(O::DeleteTaskList)),
                    ["tasks"] => by(Some(O::ListTasks), Some(O::CreateTask), None, None),
                    ["tasks", "delta" | "delta()"] => by(Some(O::TasksDelta), None, None, None),
                    ["tasks", _, rest @ ..] => {
                        self.task = Some(raw[3].clone());
                        self.of_task(method, rest, &raw[4..], by)
                    }
                    [other, ..] => Err(NoRoute::UnknownSegment((*other).to_owned())),
                }
            }
            _ => Err(NoRoute::UnknownSegment("todo".to_owned())),
        }
    }

    /// Routes the path after a task.
    fn of_task(&mut self, method: &Method, lower: &[&str], raw: &[String], by: &By<'_>) -> Result<Operation, NoRoute> {
        use Operation as O;
        let (steps, links) = (O::WriteChecklistItem, O::WriteLinkedResource);
        match lower {
            [] => by(Some(O::GetTask), None, Some(O::UpdateTask), Some(O::DeleteTask)),
            ["checklistitems"] => by(Some(O::ListChecklistItems), Some(steps), None, None),
            ["linkedresources"] => by(Some(O::ListLinkedResources), Some(links), None, None),
            ["checklistitems", _] => {
                self.part = Some(raw[1].clone());
                by(Some(O::GetChecklistItem), None, Some(steps), Some(steps))
            }
            ["linkedresources", _] => {
                self.part = Some(raw[1].clone());
                by(Some(O::GetLinkedResource), None, Some(links), Some(links))
            }
            ["attachmentsessions", _] => {
                self.part = Some(raw[1].clone());
                by(Some(O::UploadTaskAttachment), None, None, Some(O::UploadTaskAttachment))
            }
            ["attachmentsessions", _, "content"] if method == Method::PUT => {
                self.part = Some(raw[1].clone());
                Ok(O::UploadTaskAttachment)
            }
            ["attachments"] => by(Some(O::ListTaskAttachments), Some(O::CreateTaskAttachment), None, None),
            ["attachments", "createuploadsession"] if method == Method::POST => Ok(O::CreateTaskUploadSession),
            ["attachments", _, rest @ ..] => {
                self.attachment = Some(raw[1].clone());
                match rest {
                    [] => by(Some(O::GetTaskAttachment), None, None, Some(O::DeleteTaskAttachment)),
                    ["$value"] => by(Some(O::GetTaskAttachmentValue), None, None, None),
                    [other, ..] => Err(NoRoute::UnknownSegment((*other).to_owned())),
                }
            }
            [other, ..] => Err(NoRoute::UnknownSegment((*other).to_owned())),
        }
    }

    /// Routes calendars, events and views, and the path after them.
    fn of_calendars(
        &mut self,
        method: &Method,
        lower: &[&str],
        raw: &[String],
        by: &By<'_>,
    ) -> Result<Operation, NoRoute> {
        use Operation as O;
        match lower {
            ["calendars"] => by(Some(O::ListCalendars), Some(O::CreateCalendar), None, None),
            ["calendargroups"] => by(Some(O::ListCalendarGroups), None, None, None),
            ["calendargroups", _, "calendars"] => {
                self.group = Some(raw[1].clone());
                by(Some(O::ListGroupCalendars), None, None, None)
            }
            ["calendar"] => by(Some(O::GetCalendar), None, Some(O::UpdateCalendar), None),
            ["calendars", _] => {
                self.folder = Some(raw[1].clone());
                by(Some(O::GetCalendar), None, Some(O::UpdateCalendar), Some(O::DeleteCalendar))
            }
            ["calendars", _, "permanentdelete"] => {
                self.folder = Some(raw[1].clone());
                by(None, Some(O::DeleteCalendar), None, None)
            }
            ["calendar", "events" | "calendarview", ..] => self.of_calendars(method, &lower[1..], &raw[1..], by),
            ["calendars", _, "events" | "calendarview", ..] => {
                self.folder = Some(raw[1].clone());
                self.of_calendars(method, &lower[2..], &raw[2..], by)
            }
            ["calendarview"] => by(Some(O::ListCalendarView), None, None, None),
            ["calendarview", "delta" | "delta()"] => by(Some(O::CalendarViewDelta), None, None, None),
            ["events"] => by(Some(O::ListEvents), Some(O::CreateEvent), None, None),
            ["events", "$count"] => by(Some(O::CountEvents), None, None, None),
            ["events", "delta" | "delta()"] => by(Some(O::EventsDelta), None, None, None),
            ["events", _, rest @ ..] => {
                self.event = Some(raw[1].clone());
                match rest {
                    [] => by(Some(O::GetEvent), None, Some(O::UpdateEvent), Some(O::DeleteEvent)),
                    ["permanentdelete"] => by(None, Some(O::PermanentlyDeleteEvent), None, None),
                    ["cancel"] => by(None, Some(O::CancelEvent), None, None),
                    ["accept" | "decline" | "tentativelyaccept" | "forward"] => {
                        self.rest = raw[2..].to_vec();
                        by(None, Some(O::AnswerEvent), None, None)
                    }
                    ["instances"] => by(Some(O::ListInstances), None, None, None),
                    ["attachments"] => by(Some(O::ListEventAttachments), Some(O::CreateEventAttachment), None, None),
                    ["attachments", "createuploadsession"] if *method == Method::POST => {
                        Ok(O::CreateEventUploadSession)
                    }
                    ["attachments", _, rest @ ..] => {
                        self.attachment = Some(raw[3].clone());
                        match rest {
                            [] => by(Some(O::GetEventAttachment), None, None, Some(O::DeleteEventAttachment)),
                            ["$value"] => by(Some(O::GetEventAttachmentValue), None, None, None),
                            [other, ..] => Err(NoRoute::UnknownSegment((*other).to_owned())),
                        }
                    }
                    [other, ..] => Err(NoRoute::UnknownSegment((*other).to_owned())),
                }
            }
            [.., other] => Err(NoRoute::UnknownSegment((*other).to_owned())),
            [] => Err(NoRoute::UnknownSegment(String::new())),
        }
    }

    /// Routes `contactFolders` or `contacts`, and the path after it.
    fn of_contacts(
        &mut self,
        method: &Method,
        lower: &[&str],
        raw: &[String],
        by: &By<'_>,
    ) -> Result<Operation, NoRoute> {
        use Operation as O;
        match lower {
            ["contactfolders"] => by(Some(O::ListContactFolders), Some(O::CreateContactFolder), None, None),
            ["contactfolders", "delta" | "delta()"] => by(Some(O::ContactFoldersDelta), None, None, None),
            ["contactfolders", _, rest @ ..] => {
                self.folder = Some(raw[1].clone());
                match rest {
                    [] => {
                        by(Some(O::GetContactFolder), None, Some(O::UpdateContactFolder), Some(O::DeleteContactFolder))
                    }
                    ["childfolders"] => {
                        by(Some(O::ListContactChildFolders), Some(O::CreateContactChildFolder), None, None)
                    }
                    // `contactFolders/{parent}/childFolders/{folder}/..` is `contactFolders/{folder}/..`.
                    ["childfolders", ..] => {
                        let (lower, raw) = ([&lower[..1], &rest[1..]].concat(), [&raw[..1], &raw[3..]].concat());
                        self.of_contacts(method, &lower, &raw, by)
                    }
                    ["permanentdelete"] => by(None, Some(O::PermanentlyDeleteContactFolder), None, None),
                    ["contacts", "delta" | "delta()"] => by(Some(O::ContactsDelta), None, None, None),
                    ["contacts", ..] => self.of_contacts(method, rest, &raw[2..], by),
                    [other, ..] => Err(NoRoute::UnknownSegment((*other).to_owned())),
                }
            }
            ["contacts"] => by(Some(O::ListContacts), Some(O::CreateContact), None, None),
            ["contacts", "$count"] => by(Some(O::CountContacts), None, None, None),
            ["contacts", _, rest @ ..] => {
                self.contact = Some(raw[1].clone());
                match rest {
                    [] => by(Some(O::GetContact), None, Some(O::UpdateContact), Some(O::DeleteContact)),
                    ["permanentdelete"] => by(None, Some(O::PermanentlyDeleteContact), None, None),
                    ["photo"] => by(Some(O::GetContactPhoto), None, None, None),
                    ["photo", "$value"] if method == Method::PUT => Ok(O::UpdateContactPhoto),
                    ["photo", "$value"] => by(Some(O::GetContactPhotoValue), None, Some(O::UpdateContactPhoto), None),
                    [other, ..] => Err(NoRoute::UnknownSegment((*other).to_owned())),
                }
            }
            [other, ..] => Err(NoRoute::UnknownSegment((*other).to_owned())),
            [] => Err(NoRoute::UnknownSegment(String::new())),
        }
    }

    /// Routes `messages` and the path after it.
    fn of_messages(
        &mut self,
        method: &Method,
        lower: &[&str],
        raw: &[String],
        by: &By<'_>,
    ) -> Result<Operation, NoRoute> {
        use Operation as O;
        match lower {
            ["messages"] => return by(Some(O::ListMessages), Some(O::CreateMessage), None, None),
            ["messages", "$count"] => return by(Some(O::CountMessages), None, None, None),
            _ => {}
        }
        self.message = Some(raw[1].clone());
        match &lower[2..] {
            [] => by(Some(O::GetMessage), None, Some(O::UpdateMessage), Some(O::DeleteMessage)),
            ["$value"] => by(Some(O::GetMessageValue), None, None, None),
            ["move"] => by(None, Some(O::MoveMessage), None, None),
            ["copy"] => by(None, Some(O::CopyMessage), None, None),
            ["permanentdelete"] => by(None, Some(O::PermanentlyDeleteMessage), None, None),
            ["send" | "reply" | "replyall" | "forward"] => by(None, Some(O::SendMail), None, None),
            ["attachments"] => by(Some(O::ListAttachments), Some(O::CreateAttachment), None, None),
            ["attachments", "createuploadsession"] if method == Method::POST => Ok(O::CreateUploadSession),
            ["attachments", _, rest @ ..] => {
                self.attachment = Some(raw[3].clone());
                match rest {
                    [] => by(Some(O::GetAttachment), None, None, Some(O::DeleteAttachment)),
                    ["$value"] => by(Some(O::GetAttachmentValue), None, None, None),
                    [other, ..] => Err(NoRoute::UnknownSegment((*other).to_owned())),
                }
            }
            [other, ..] => Err(NoRoute::UnknownSegment((*other).to_owned())),
        }
    }
}

/// Splits `users('id')` into `users` and `id`, and decodes both.
fn key_form(segment: &str) -> Vec<String> {
    let segment = percent_decode_str(segment).decode_utf8_lossy();
    match segment.split_once("('").and_then(|(name, key)| Some((name, key.strip_suffix("')")?))) {
        Some((name, key)) if !name.is_empty() => vec![name.to_owned(), key.replace("''", "'")],
        _ => vec![segment.into_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(path: &str) -> Result<Route, NoRoute> {
        Route::parse(&Method::GET, path)
    }

    #[test]
    fn both_forms_of_keys_mean_the_same() {
        let slashes =
            route("/v1.0/users/o%27brien%40contoso.com/mailFolders/AQ%3D%3D/messages/delta").expect("a route");
        let keys =
            route("/v1.0/Users('o''brien%40contoso.com')/mailfolders('AQ==')/messages/delta()").expect("a route");
        assert_eq!(slashes, keys);
        assert_eq!(slashes.operation, Operation::MessagesDelta);
        assert_eq!(slashes.user.as_deref(), Some("o'brien@contoso.com"));
        assert_eq!(slashes.folder.as_deref(), Some("AQ=="));
    }

    #[test]
    fn messages_are_found_with_and_without_folder() {
        for path in
            ["/v1.0/users/u/messages/m/attachments/a/$value", "/beta/me/mailFolders/f/messages/m/attachments/a/$value"]
        {
            let route = route(path).expect("a route");
            assert_eq!(route.operation, Operation::GetAttachmentValue);
            assert_eq!((route.message.as_deref(), route.attachment.as_deref()), (Some("m"), Some("a")));
        }
        let nested = route("/v1.0/users/u/mailFolders/p/childFolders/f/messages").expect("a route");
        assert_eq!((nested.operation, nested.folder.as_deref()), (Operation::ListMessages, Some("f")));
    }

    #[test]
    fn contacts_are_found_with_and_without_folder() {
        let value = route("/v1.0/users('u')/contactfolders('f')/contacts('c')/photo/$value").expect("a route");
        assert_eq!(value.operation, Operation::GetContactPhotoValue);
        assert_eq!((value.folder.as_deref(), value.contact.as_deref()), (Some("f"), Some("c")));
        let nested = route("/v1.0/me/contactFolders/p/childFolders/f/contacts/delta").expect("a route");
        assert_eq!((nested.operation, nested.folder.as_deref()), (Operation::ContactsDelta, Some("f")));
        let all = route("/v1.0/users/u/contacts").expect("a route");
        assert_eq!((all.operation, all.folder), (Operation::ListContacts, None));
        let put = Route::parse(&Method::PUT, "/v1.0/users/u/contacts/c/photo/$value").expect("a route");
        assert_eq!(put.operation, Operation::UpdateContactPhoto);
        assert_eq!(Route::parse(&Method::PUT, "/v1.0/users/u/contacts/c"), Err(NoRoute::MethodNotAllowed));
    }

    #[test]
    fn events_are_found_with_and_without_calendar() {
        let value = route("/v1.0/users('u')/calendars('c')/events('e')/attachments/a/$value").expect("a route");
        assert_eq!(value.operation, Operation::GetEventAttachmentValue);
        assert_eq!((value.folder.as_deref(), value.event.as_deref()), (Some("c"), Some("e")));
        for (path, operation) in [
            ("/v1.0/me/calendar/events", Operation::ListEvents),
            ("/v1.0/me/events/e/instances", Operation::ListInstances),
            ("/v1.0/me/calendarView/delta()", Operation::CalendarViewDelta),
            ("/v1.0/me/calendar", Operation::GetCalendar),
            ("/v1.0/me/calendarGroups/g/calendars", Operation::ListGroupCalendars),
        ] {
            let route = route(path).expect("a route");
            assert_eq!((route.operation, route.folder), (operation, None), "{path}");
        }
        assert_eq!(route("/v1.0/me/calendar/frobs"), Err(NoRoute::UnknownSegment("frobs".to_owned())));
    }

    #[test]
    fn tasks_are_found_in_their_lists() {
        let value = route("/v1.0/users('u')/todo/lists('l')/tasks('t')/attachments/a/$value").expect("a route");
        assert_eq!(value.operation, Operation::GetTaskAttachmentValue);
        assert_eq!((value.folder.as_deref(), value.task.as_deref()), (Some("l"), Some("t")));
        let session = "/v1.0/me/todo/lists/l/tasks/t/attachmentSessions/s";
        let put = Route::parse(&Method::PUT, &format!("{session}/content")).expect("a route");
        assert_eq!((put.operation, put.part.as_deref()), (Operation::UploadTaskAttachment, Some("s")));
        assert_eq!(Route::parse(&Method::PUT, session), Err(NoRoute::MethodNotAllowed));
        assert_eq!(route("/v1.0/me/todo"), Err(NoRoute::UnknownSegment("todo".to_owned())));
    }

    #[test]
    fn what_means_nothing() {
        assert_eq!(route("/v1.0/users/u/frobs"), Err(NoRoute::UnknownSegment("frobs".to_owned())));
        assert_eq!(route("/v2.0/users"), Err(NoRoute::NotGraph));
        // Message deltas exist only per folder.
        let all = route("/v1.0/users/u/messages/delta").expect("read as the id of a message");
        assert_eq!(all.operation, Operation::GetMessage);
        assert_eq!(Route::parse(&Method::PUT, "/v1.0/users/u/messages"), Err(NoRoute::MethodNotAllowed));
    }
}
