//! The operations of Graph that the simulator knows, each with its requests.

macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident)*) => {
        /// The operation that a request asks for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Operation { $($(#[$doc])* $name,)* }

        impl Operation {
            /// Returns its name, as shown in the counters.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

operations! {
    /// `GET /organization`
    ListOrganizations
    /// `GET /subscribedSkus`
    ListSkus
    /// `GET /users`
    ListUsers
    /// `GET /users/delta`
    UsersDelta
    /// `GET /users/$count`
    CountUsers
    /// `GET /directory/deletedItems/microsoft.graph.user`
    ListDeletedUsers
    /// `GET /users/{u}` or `/me`
    GetUser
    /// `GET /users/{u}/licenseDetails`
    ListLicenses
    /// `GET /users/{u}/mailboxSettings[/property]`
    GetMailboxSettings
    /// `PATCH /users/{u}/mailboxSettings`
    UpdateMailboxSettings
    /// `GET /users/{u}/outlook/masterCategories`
    ListCategories
    /// `POST /users/{u}/outlook/masterCategories`
    CreateCategory
    /// `GET /users/{u}/mailFolders/inbox/messageRules`
    ListRules
    /// `POST /users/{u}/mailFolders/inbox/messageRules`
    CreateRule
    /// `POST /users/{u}/translateExchangeIds`
    TranslateIds
    /// `GET /users/{u}/mailFolders`
    ListFolders
    /// `POST /users/{u}/mailFolders`
    CreateFolder
    /// `GET /users/{u}/mailFolders/delta`
    FoldersDelta
    /// `GET /users/{u}/mailFolders/{f}`
    GetFolder
    /// `PATCH /users/{u}/mailFolders/{f}`
    UpdateFolder
    /// `DELETE /users/{u}/mailFolders/{f}`
    DeleteFolder
    /// `POST /users/{u}/mailFolders/{f}/permanentDelete`
    PermanentlyDeleteFolder
    /// `POST /users/{u}/mailFolders/{f}/move`
    MoveFolder
    /// `POST /users/{u}/mailFolders/{f}/copy`
    CopyFolder
    /// `GET /users/{u}/mailFolders/{f}/childFolders`
    ListChildFolders
    /// `POST /users/{u}/mailFolders/{f}/childFolders`
    CreateChildFolder
    /// `GET /users/{u}[/mailFolders/{f}]/messages`
    ListMessages
    /// `GET /users/{u}[/mailFolders/{f}]/messages/$count`
    CountMessages
    /// `POST /users/{u}[/mailFolders/{f}]/messages`
    CreateMessage
    /// `GET /users/{u}/mailFolders/{f}/messages/delta`
    MessagesDelta
    /// `GET /users/{u}/messages/{m}`
    GetMessage
    /// `GET /users/{u}/messages/{m}/$value`
    GetMessageValue
    /// `PATCH /users/{u}/messages/{m}`
    UpdateMessage
    /// `DELETE /users/{u}/messages/{m}`
    DeleteMessage
    /// `POST /users/{u}/messages/{m}/permanentDelete`
    PermanentlyDeleteMessage
    /// `POST /users/{u}/messages/{m}/move`
    MoveMessage
    /// `POST /users/{u}/messages/{m}/copy`
    CopyMessage
    /// `POST /users/{u}/messages/{m}/send`, `sendMail`, `reply`, `forward` and similar operations
    SendMail
    /// `GET /users/{u}/messages/{m}/attachments`
    ListAttachments
    /// `POST /users/{u}/messages/{m}/attachments`
    CreateAttachment
    /// `POST /users/{u}/messages/{m}/attachments/createUploadSession`
    CreateUploadSession
    /// `GET /users/{u}/messages/{m}/attachments/{a}`
    GetAttachment
    /// `GET /users/{u}/messages/{m}/attachments/{a}/$value`
    GetAttachmentValue
    /// `DELETE /users/{u}/messages/{m}/attachments/{a}`
    DeleteAttachment
    /// `GET /users/{u}/contactFolders`
    ListContactFolders
    /// `POST /users/{u}/contactFolders`
    CreateContactFolder
    /// `GET /users/{u}/contactFolders/delta`
    ContactFoldersDelta
    /// `GET /users/{u}/contactFolders/{f}`
    GetContactFolder
    /// `PATCH /users/{u}/contactFolders/{f}`
    UpdateContactFolder
    /// `DELETE /users/{u}/contactFolders/{f}`
    DeleteContactFolder
    /// `POST /users/{u}/contactFolders/{f}/permanentDelete`
    PermanentlyDeleteContactFolder
    /// `GET /users/{u}/contactFolders/{f}/childFolders`
    ListContactChildFolders
    /// `POST /users/{u}/contactFolders/{f}/childFolders`
    CreateContactChildFolder
    /// `GET /users/{u}[/contactFolders/{f}]/contacts`
    ListContacts
    /// `GET /users/{u}[/contactFolders/{f}]/contacts/$count`
    CountContacts
    /// `POST /users/{u}[/contactFolders/{f}]/contacts`
    CreateContact
    /// `GET /users/{u}/contactFolders/{f}/contacts/delta`
    ContactsDelta
    /// `GET /users/{u}[/contactFolders/{f}]/contacts/{c}`
    GetContact
    /// `PATCH /users/{u}[/contactFolders/{f}]/contacts/{c}`
    UpdateContact
    /// `DELETE /users/{u}[/contactFolders/{f}]/contacts/{c}`
    DeleteContact
    /// `POST /users/{u}[/contactFolders/{f}]/contacts/{c}/permanentDelete`
    PermanentlyDeleteContact
    /// `GET /users/{u}[/contactFolders/{f}]/contacts/{c}/photo`
    GetContactPhoto
    /// `GET /users/{u}[/contactFolders/{f}]/contacts/{c}/photo/$value`
    GetContactPhotoValue
    /// `PUT` and `PATCH /users/{u}[/contactFolders/{f}]/contacts/{c}/photo/$value`
    UpdateContactPhoto
    /// `GET /users/{u}/calendars`
    ListCalendars
    /// `POST /users/{u}/calendars`
    CreateCalendar
    /// `GET /users/{u}/calendarGroups`
    ListCalendarGroups
    /// `GET /users/{u}/calendarGroups/{g}/calendars`
    ListGroupCalendars
    /// `GET /users/{u}/calendar` and `GET /users/{u}/calendars/{c}`
    GetCalendar
    /// `PATCH /users/{u}/calendars/{c}`
    UpdateCalendar
    /// `DELETE /users/{u}/calendars/{c}`
    DeleteCalendar
    /// `GET /users/{u}[/calendars/{c}]/events`
    ListEvents
    /// `GET /users/{u}[/calendars/{c}]/events/$count`
    CountEvents
    /// `POST /users/{u}[/calendars/{c}]/events`
    CreateEvent
    /// `GET /users/{u}[/calendars/{c}]/events/delta`
    EventsDelta
    /// `GET /users/{u}[/calendars/{c}]/events/{e}`
    GetEvent
    /// `PATCH /users/{u}[/calendars/{c}]/events/{e}`
    UpdateEvent
    /// `DELETE /users/{u}[/calendars/{c}]/events/{e}`
    DeleteEvent
    /// `POST /users/{u}[/calendars/{c}]/events/{e}/permanentDelete`
    PermanentlyDeleteEvent
    /// `POST /users/{u}[/calendars/{c}]/events/{e}/cancel`
    CancelEvent
    /// `POST /users/{u}[/calendars/{c}]/events/{e}/accept`, `decline`, `tentativelyAccept` and `forward`
    AnswerEvent
    /// `GET /users/{u}[/calendars/{c}]/events/{e}/instances`
    ListInstances
    /// `GET /users/{u}[/calendars/{c}]/calendarView`
    ListCalendarView
    /// `GET /users/{u}[/calendars/{c}]/calendarView/delta`
    CalendarViewDelta
    /// `GET /users/{u}[/calendars/{c}]/events/{e}/attachments`
    ListEventAttachments
    /// `POST /users/{u}[/calendars/{c}]/events/{e}/attachments`
    CreateEventAttachment
    /// `POST /users/{u}[/calendars/{c}]/events/{e}/attachments/createUploadSession`
    CreateEventUploadSession
    /// `GET /users/{u}[/calendars/{c}]/events/{e}/attachments/{a}`
    GetEventAttachment
    /// `GET /users/{u}[/calendars/{c}]/events/{e}/attachments/{a}/$value`
    GetEventAttachmentValue
    /// `DELETE /users/{u}[/calendars/{c}]/events/{e}/attachments/{a}`
    DeleteEventAttachment
    /// `GET /users/{u}/todo/lists`
    ListTaskLists
    /// `POST /users/{u}/todo/lists`
    CreateTaskList
    /// `GET /users/{u}/todo/lists/delta`
    TaskListsDelta
    /// `GET /users/{u}/todo/lists/{l}`
    GetTaskList
    /// `PATCH /users/{u}/todo/lists/{l}`
    UpdateTaskList
    /// `DELETE /users/{u}/todo/lists/{l}`
    DeleteTaskList
    /// `GET /users/{u}/todo/lists/{l}/tasks`
    ListTasks
    /// `POST /users/{u}/todo/lists/{l}/tasks`
    CreateTask
    /// `GET /users/{u}/todo/lists/{l}/tasks/delta`
    TasksDelta
    /// `GET /users/{u}/todo/lists/{l}/tasks/{t}`
    GetTask
    /// `PATCH /users/{u}/todo/lists/{l}/tasks/{t}`
    UpdateTask
    /// `DELETE /users/{u}/todo/lists/{l}/tasks/{t}`
    DeleteTask
    /// `GET .../tasks/{t}/checklistItems`
    ListChecklistItems
    /// `GET .../tasks/{t}/linkedResources`
    ListLinkedResources
    /// `GET .../tasks/{t}/checklistItems/{c}`
    GetChecklistItem
    /// `GET .../tasks/{t}/linkedResources/{r}`
    GetLinkedResource
    /// `POST`, `PATCH` and `DELETE` of a checklist item
    WriteChecklistItem
    /// `POST`, `PATCH` and `DELETE` of a linked resource
    WriteLinkedResource
    /// `GET .../tasks/{t}/attachments`
    ListTaskAttachments
    /// `POST .../tasks/{t}/attachments`
    CreateTaskAttachment
    /// `POST .../tasks/{t}/attachments/createUploadSession`
    CreateTaskUploadSession
    /// `GET .../tasks/{t}/attachments/{a}`
    GetTaskAttachment
    /// `GET .../tasks/{t}/attachments/{a}/$value`
    GetTaskAttachmentValue
    /// `DELETE .../tasks/{t}/attachments/{a}`
    DeleteTaskAttachment
    /// `PUT .../tasks/{t}/attachmentSessions/{s}/content`, `GET` and `DELETE .../attachmentSessions/{s}`
    UploadTaskAttachment
    /// `POST /$batch`
    Batch
    /// `GET /users/{u}/settings/exchange`
    GetExchangeSettings
    /// Anything under `/admin/exchange/mailboxes/{m}`
    ExchangeMailbox
}
