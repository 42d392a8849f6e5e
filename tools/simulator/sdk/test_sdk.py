"""Runs Microsoft's Graph SDK for Python against the simulator.

What the SDK reads as typed objects, follows and sends must work unchanged: it knows nothing of the simulator but its
address. Sign-in is the client credentials grant done by hand, because azure-identity insists on HTTPS.
"""

import asyncio
import base64
import os
import sys
import traceback
from datetime import date
from email import message_from_bytes

import httpx
from kiota_abstractions.authentication import (
    AccessTokenProvider,
    AllowedHostsValidator,
    BaseBearerTokenAuthenticationProvider,
)
from kiota_abstractions.base_request_configuration import RequestConfiguration
from kiota_abstractions.headers_collection import HeadersCollection
from msgraph import GraphRequestAdapter, GraphServiceClient
from msgraph.generated.models.attachment_item import AttachmentItem
from msgraph.generated.models.attachment_type import AttachmentType
from msgraph.generated.models.body_type import BodyType
from msgraph.generated.models.calendar import Calendar
from msgraph.generated.models.checklist_item import ChecklistItem
from msgraph.generated.models.date_time_time_zone import DateTimeTimeZone
from msgraph.generated.models.day_of_week import DayOfWeek
from msgraph.generated.models.email_address import EmailAddress
from msgraph.generated.models.event import Event
from msgraph.generated.models.event_type import EventType
from msgraph.generated.models.file_attachment import FileAttachment
from msgraph.generated.models.importance import Importance
from msgraph.generated.models.item_body import ItemBody
from msgraph.generated.models.linked_resource import LinkedResource
from msgraph.generated.models.mail_folder import MailFolder
from msgraph.generated.models.message import Message
from msgraph.generated.models.o_data_errors.o_data_error import ODataError
from msgraph.generated.models.patterned_recurrence import PatternedRecurrence
from msgraph.generated.models.recipient import Recipient
from msgraph.generated.models.recurrence_pattern import RecurrencePattern
from msgraph.generated.models.recurrence_pattern_type import RecurrencePatternType
from msgraph.generated.models.recurrence_range import RecurrenceRange
from msgraph.generated.models.recurrence_range_type import RecurrenceRangeType
from msgraph.generated.models.single_value_legacy_extended_property import SingleValueLegacyExtendedProperty
from msgraph.generated.models.task_file_attachment import TaskFileAttachment
from msgraph.generated.models.task_status import TaskStatus
from msgraph.generated.models.todo_task import TodoTask
from msgraph.generated.models.todo_task_list import TodoTaskList
from msgraph.generated.models.wellknown_list_name import WellknownListName
from msgraph.generated.users.item.events.item.event_item_request_builder import EventItemRequestBuilder
from msgraph.generated.users.item.events.item.instances.instances_request_builder import InstancesRequestBuilder
from msgraph.generated.users.item.mail_folders.item.copy.copy_post_request_body import (
    CopyPostRequestBody as CopyFolderBody,
)
from msgraph.generated.users.item.messages.item.attachments.create_upload_session.create_upload_session_post_request_body import (  # noqa: E501
    CreateUploadSessionPostRequestBody,
)
from msgraph.generated.users.item.messages.item.copy.copy_post_request_body import CopyPostRequestBody
from msgraph.generated.users.item.messages.item.move.move_post_request_body import MovePostRequestBody
from msgraph.generated.users.item.messages.messages_request_builder import MessagesRequestBuilder
from msgraph.generated.users.item.todo.lists.item.tasks.item.todo_task_item_request_builder import (
    TodoTaskItemRequestBuilder,
)
from msgraph.generated.users.users_request_builder import UsersRequestBuilder
from msgraph_core import PageIterator
from msgraph_core.requests.batch_request_content import BatchRequestContent
from msgraph_core.requests.batch_request_item import BatchRequestItem

URL = os.environ["SIMULATOR_URL"]
IMMUTABLE = 'IdType="ImmutableId"'


class Token(AccessTokenProvider):
    """Signs in once with the application's secret."""

    def __init__(self):
        answer = httpx.post(
            f"{URL}/{os.environ['SIMULATOR_TENANT']}/oauth2/v2.0/token",
            data={
                "client_id": os.environ["SIMULATOR_CLIENT"],
                "client_secret": os.environ["SIMULATOR_SECRET"],
                "scope": "https://graph.microsoft.com/.default",
                "grant_type": "client_credentials",
            },
        )
        answer.raise_for_status()
        self.token = answer.json()["access_token"]

    async def get_authorization_token(self, uri, additional_authentication_context=None):
        return self.token

    def get_allowed_hosts_validator(self):
        return AllowedHostsValidator([])


def prefer(*values):
    """Returns the options of a request with these `Prefer` values."""
    headers = HeadersCollection()
    for value in values:
        headers.add("Prefer", value)
    return RequestConfiguration(headers=headers)


class Suite:
    """The tests; each uses the tenant as it finds it."""

    def __init__(self):
        self.adapter = GraphRequestAdapter(BaseBearerTokenAuthenticationProvider(Token()))
        self.adapter.base_url = f"{URL}/v1.0"
        self.graph = GraphServiceClient(request_adapter=self.adapter)

    async def user(self):
        users = await self.graph.users.get()
        return self.graph.users.by_user_id(users.value[0].id)

    async def all(self, first):
        """Returns the rows of all pages."""
        rows = []
        iterator = PageIterator(first, self.adapter)
        await iterator.iterate(lambda row: rows.append(row) or True)
        return rows

    async def test_users_come_in_pages(self):
        parameters = UsersRequestBuilder.UsersRequestBuilderGetQueryParameters(select=["id", "mail"], top=1)
        first = await self.graph.users.get(RequestConfiguration(query_parameters=parameters))
        assert first.odata_next_link, "one user a page, and there are two"
        users = await self.all(first)
        assert len({user.id for user in users}) == 2
        assert all(user.mail and user.display_name is None for user in users), "only what was selected"
        organization = (await self.graph.organization.get()).value[0]
        assert organization.id == os.environ["SIMULATOR_TENANT"]

    async def test_an_unknown_user_is_an_error_with_a_code(self):
        try:
            await self.graph.users.by_user_id("nobody@contoso.com").get()
        except ODataError as error:
            assert error.response_status_code == 404
            assert error.error.code == "Request_ResourceNotFound"
            assert error.error.inner_error.request_id
        else:
            raise AssertionError("nobody was found")

    async def test_folders_have_children_and_well_known_names(self):
        user = await self.user()
        folders = await self.all(await user.mail_folders.get())
        inbox = await user.mail_folders.by_mail_folder_id("inbox").get()
        assert inbox.id in {folder.id for folder in folders}
        children = await user.mail_folders.by_mail_folder_id("inbox").child_folders.get()
        assert len(children.value) == min(inbox.child_folder_count, 10)
        assert isinstance(inbox.total_item_count, int)

    async def test_a_delta_ends_and_goes_on(self):
        user = await self.user()
        builder = user.mail_folders.by_mail_folder_id("inbox").messages.delta
        config = prefer("odata.maxpagesize=7", IMMUTABLE)
        page, seen, pages = await builder.get(config), [], 0
        while True:
            seen += page.value
            pages += 1
            if not page.odata_next_link:
                break
            page = await builder.with_url(page.odata_next_link).get(config)
        assert pages > 1 and seen
        inbox = await user.mail_folders.by_mail_folder_id("inbox").get()
        assert len({message.id for message in seen}) == inbox.total_item_count
        link = page.odata_delta_link
        assert (await builder.with_url(link).get(config)).value == []

        await user.messages.by_message_id(seen[0].id).patch(Message(is_read=not seen[0].is_read))
        after = await builder.with_url(link).get(config)
        assert [message.id for message in after.value] == [seen[0].id]
        assert after.value[0].is_read != seen[0].is_read

    async def test_value_is_mime(self):
        user = await self.user()
        parameters = MessagesRequestBuilder.MessagesRequestBuilderGetQueryParameters(
            select=["internetMessageId"], top=5, orderby=["receivedDateTime desc"]
        )
        messages = (await user.messages.get(RequestConfiguration(query_parameters=parameters))).value
        assert len(messages) == 5
        for message in messages:
            mime = await user.messages.by_message_id(message.id).content.get()
            parsed = message_from_bytes(mime)
            assert parsed["Message-ID"] == message.internet_message_id

    async def test_a_message_is_created_read_and_deleted(self):
        user = await self.user()
        sent = "2020-01-02T03:04:05Z"
        message = Message(
            subject="Grüße",
            body=ItemBody(content_type=BodyType.Html, content="<p>Hello</p>"),
            to_recipients=[Recipient(email_address=EmailAddress(address="a@example.com", name="A"))],
            is_read=True,
            single_value_extended_properties=[
                SingleValueLegacyExtendedProperty(id="Integer 0x0E07", value="1"),
                SingleValueLegacyExtendedProperty(id="SystemTime 0x0039", value=sent),
                SingleValueLegacyExtendedProperty(id="SystemTime 0x0E06", value=sent),
            ],
        )
        created = await user.mail_folders.by_mail_folder_id("inbox").messages.post(message)
        found = await user.messages.by_message_id(created.id).get()
        assert (found.subject, found.is_draft, found.is_read) == ("Grüße", False, True)
        assert found.received_date_time.isoformat().startswith("2020-01-02T03:04:05")
        assert found.sent_date_time.isoformat().startswith("2020-01-02T03:04:05")
        assert found.to_recipients[0].email_address.address == "a@example.com"

        draft = await user.messages.post(Message(subject="draft"))
        assert draft.is_draft
        for made in (created, draft):
            await user.messages.by_message_id(made.id).delete()

    async def test_a_message_moves_and_is_copied(self):
        user = await self.user()
        made = await user.mail_folders.by_mail_folder_id("inbox").messages.post(Message(subject="move me"))
        moved = await user.messages.by_message_id(made.id).move.post(MovePostRequestBody(destination_id="archive"))
        archive = await user.mail_folders.by_mail_folder_id("archive").get()
        assert moved.parent_folder_id == archive.id and moved.id != made.id
        copied = await user.messages.by_message_id(moved.id).copy.post(CopyPostRequestBody(destination_id="inbox"))
        assert copied.subject == "move me" and copied.id != moved.id
        try:
            await user.messages.by_message_id(made.id).get()
        except ODataError as error:
            assert error.error.code == "ErrorItemNotFound"
        else:
            raise AssertionError("the old id still works")
        for left in (moved, copied):
            await user.messages.by_message_id(left.id).delete()

    async def test_folders_are_made_renamed_copied_and_deleted(self):
        user = await self.user()
        made = await user.mail_folders.post(MailFolder(display_name="Restored"))
        child = await user.mail_folders.by_mail_folder_id(made.id).child_folders.post(MailFolder(display_name="a/b"))
        assert child.parent_folder_id == made.id
        try:
            await user.mail_folders.post(MailFolder(display_name="restored"))
        except ODataError as error:
            assert (error.response_status_code, error.error.code) == (409, "ErrorFolderExists")
        else:
            raise AssertionError("two siblings have one name")
        renamed = await user.mail_folders.by_mail_folder_id(made.id).patch(MailFolder(display_name="Restored again"))
        assert (renamed.id, renamed.display_name) == (made.id, "Restored again")
        copy = await user.mail_folders.by_mail_folder_id(made.id).copy.post(CopyFolderBody(destination_id="archive"))
        for folder in (made, copy):
            await user.mail_folders.by_mail_folder_id(folder.id).delete()

    async def test_attachments_go_up_and_come_down(self):
        user = await self.user()
        made = await user.messages.post(Message(subject="attachments"))
        message = user.messages.by_message_id(made.id)
        small = FileAttachment(
            odata_type="#microsoft.graph.fileAttachment",
            name="small.txt",
            content_type="text/plain",
            content_bytes=b"small",
        )
        await message.attachments.post(small)

        content = bytes(range(251)) * 20_000
        item = AttachmentItem(attachment_type=AttachmentType.File, name="large.bin", size=len(content))
        session = await message.attachments.create_upload_session.post(
            CreateUploadSessionPostRequestBody(attachment_item=item)
        )
        # The URL carries its own permission, and takes ranges of at most 4 MB.
        async with httpx.AsyncClient() as client:
            for start in range(0, len(content), 3_000_000):
                part = content[start : start + 3_000_000]
                content_range = f"bytes {start}-{start + len(part) - 1}/{len(content)}"
                reply = await client.put(session.upload_url, content=part, headers={"Content-Range": content_range})
                assert reply.status_code in (200, 201), reply.text
        assert reply.status_code == 201 and reply.content == b""

        found = {attachment.name: attachment for attachment in (await message.attachments.get()).value}
        assert set(found) == {"small.txt", "large.bin"}
        one = await message.attachments.by_attachment_id(found["small.txt"].id).get()
        assert isinstance(one, FileAttachment) and one.content_type == "text/plain"
        raw = await self.raw(f"users/{await self.user_id()}/messages/{made.id}/attachments/{found['large.bin'].id}/$value")
        assert raw == content
        await message.delete()

    async def user_id(self):
        return (await self.graph.users.get()).value[0].id

    async def raw(self, path):
        """Returns bytes for which the SDK has no method."""
        provider = self.adapter._authentication_provider.access_token_provider
        headers = {"Authorization": f"Bearer {provider.token}"}
        async with httpx.AsyncClient() as client:
            reply = await client.get(f"{URL}/v1.0/{path}", headers=headers)
        reply.raise_for_status()
        return reply.content

    async def test_a_batch_answers_each(self):
        user = await self.user()
        requests = {
            "inbox": user.mail_folders.by_mail_folder_id("inbox").to_get_request_information(),
            "drafts": user.mail_folders.by_mail_folder_id("drafts").to_get_request_information(),
            "nothing": user.mail_folders.by_mail_folder_id("clutter").to_get_request_information(),
        }
        content = BatchRequestContent()
        for name, information in requests.items():
            item = BatchRequestItem(information, id=name)
            # The SDK keeps the absolute URL, which the service refuses (microsoftgraph/msgraph-sdk-python#1015).
            item.url = item.url.removeprefix(f"{URL}/v1.0")
            content.add_request(name, item)
        answer = await self.graph.batch.post(content)
        statuses = answer.get_response_status_codes()
        assert statuses == {"inbox": 200, "drafts": 200, "nothing": 404}, statuses
        # Bodies that are JSON objects, as the documentation has them, are dropped by msgraph-core 1.5.2.

    async def test_the_mailbox_import_and_export_api(self):
        from msgraph.generated.admin.exchange.mailboxes.item.export_items.export_items_post_request_body import (
            ExportItemsPostRequestBody,
        )

        identity = await self.user_id()
        settings = await self.graph.users.by_user_id(identity).settings.exchange.get()
        mailbox = self.graph.admin.exchange.mailboxes.by_mailbox_id(settings.primary_mailbox_id)
        folders = await self.all(await mailbox.folders.get())
        assert folders and all(folder.type for folder in folders)
        items = (await mailbox.folders.by_mailbox_folder_id("inbox").items.get()).value
        assert items[0].size > 0
        exported = await mailbox.export_items.post(ExportItemsPostRequestBody(item_ids=[items[0].id, "gone"]))
        rows = {row.item_id: row for row in exported.value}
        assert rows["gone"].error.code == "ErrorItemNotFound" and rows[items[0].id].data
        session = await mailbox.create_import_session.post()
        data = base64.b64encode(rows[items[0].id].data).decode()
        inbox = await mailbox.folders.by_mailbox_folder_id("inbox").get()
        body = {"FolderId": inbox.id, "Mode": "create", "Data": data}
        async with httpx.AsyncClient() as client:
            reply = await client.post(session.import_url, json=body)
        assert reply.status_code == 200 and reply.json()["itemId"], reply.text
        again = await mailbox.folders.by_mailbox_folder_id("inbox").get()
        assert again.total_item_count == inbox.total_item_count + 1

    async def test_a_series_has_instances_and_exceptions(self):
        user = await self.user()
        calendars = await self.all(await user.calendars.get())
        default = await user.calendar.get()
        assert default.id in {calendar.id for calendar in calendars} and default.is_default_calendar
        made = await user.calendars.post(Calendar(name="Made by the SDK"))
        calendar = user.calendars.by_calendar_id(made.id)
        zone = "Pacific Standard Time"
        pattern = RecurrencePattern(
            type=RecurrencePatternType.Weekly, interval=1, days_of_week=[DayOfWeek.Wednesday]
        )
        range_ = RecurrenceRange(
            type=RecurrenceRangeType.NoEnd, start_date=date(2026, 3, 4), recurrence_time_zone=zone
        )
        event = await calendar.events.post(
            Event(
                subject="Weekly",
                start=DateTimeTimeZone(date_time="2026-03-04T09:00:00", time_zone=zone),
                end=DateTimeTimeZone(date_time="2026-03-04T10:00:00", time_zone=zone),
                recurrence=PatternedRecurrence(pattern=pattern, range=range_),
                transaction_id="3f8c",
            )
        )
        assert event.type == EventType.SeriesMaster and event.is_organizer
        assert event.recurrence.range.recurrence_time_zone == zone
        parameters = InstancesRequestBuilder.InstancesRequestBuilderGetQueryParameters(
            start_date_time="2026-03-01T00:00:00Z", end_date_time="2026-04-01T00:00:00Z", top=2
        )
        series = user.events.by_event_id(event.id)
        instances = await self.all(await series.instances.get(RequestConfiguration(query_parameters=parameters)))
        starts = [instance.start.date_time[:16] for instance in instances]
        assert starts == ["2026-03-04T17:00", "2026-03-11T16:00", "2026-03-18T16:00", "2026-03-25T16:00"], starts
        changed = await user.events.by_event_id(instances[1].id).patch(Event(subject="Changed"))
        assert changed.type == EventType.Exception and changed.original_start.hour == 16
        await user.events.by_event_id(instances[2].id).delete()
        parameters = EventItemRequestBuilder.EventItemRequestBuilderGetQueryParameters(
            select=["subject", "cancelledOccurrences"], expand=["exceptionOccurrences"]
        )
        read = await series.get(RequestConfiguration(query_parameters=parameters))
        assert [one.subject for one in read.exception_occurrences] == ["Changed"]
        assert [day.rsplit(".", 1)[1] for day in read.cancelled_occurrences] == ["2026-03-18"]
        attachment = FileAttachment(
            odata_type="#microsoft.graph.fileAttachment", name="a.txt", content_bytes=b"Hello"
        )
        await series.attachments.post(attachment)
        attachments = await series.attachments.get()
        assert [(one.name, one.size > 5) for one in attachments.value] == [("a.txt", True)]
        await calendar.delete()

    async def test_tasks_have_steps_and_deltas(self):
        user = await self.user()
        made = await user.todo.lists.post(TodoTaskList(display_name="Made by the SDK"))
        assert made.is_owner and made.wellknown_list_name == WellknownListName.None_
        list_ = user.todo.lists.by_todo_task_list_id(made.id)
        page = await list_.tasks.delta.get()
        due = DateTimeTimeZone(date_time="2026-03-04T12:00:00", time_zone="UTC")
        task = await list_.tasks.post(TodoTask(title="Order", importance=Importance.High, due_date_time=due))
        assert task.due_date_time.date_time.startswith("2026-03-04T00:00:00") and task.status == TaskStatus.NotStarted
        builder = list_.tasks.by_todo_task_id(task.id)
        await builder.checklist_items.post(ChecklistItem(display_name="One", is_checked=True))
        await builder.linked_resources.post(LinkedResource(web_url="https://contoso.com/1", application_name="Contoso"))
        await builder.attachments.post(
            TaskFileAttachment(
                odata_type="#microsoft.graph.taskFileAttachment", name="a.txt", content_bytes=b"Hello"
            )
        )
        parameters = TodoTaskItemRequestBuilder.TodoTaskItemRequestBuilderGetQueryParameters(
            expand=["checklistItems", "linkedResources"]
        )
        read = await builder.get(RequestConfiguration(query_parameters=parameters))
        assert [step.display_name for step in read.checklist_items] == ["One"] and read.has_attachments
        assert read.linked_resources[0].web_url == "https://contoso.com/1"
        attached = (await builder.attachments.get()).value[0]
        whole = await builder.attachments.by_attachment_base_id(attached.id).get()
        assert whole.content_bytes and attached.size == 5
        changes = await list_.tasks.delta.with_url(page.odata_delta_link).get()
        assert [row.title for row in changes.value] == ["Order"]
        await builder.patch(TodoTask(status=TaskStatus.Completed))
        assert (await builder.get()).completed_date_time
        await list_.delete()

    async def test_the_sdk_waits_when_it_is_told_to(self):
        """The SDK's own retry handler reads `Retry-After`."""
        async with httpx.AsyncClient() as control:
            rule = {"contains": "/organization", "times": 1, "fault": "tooManyRequests"}
            reply = await control.put(f"{URL}/control/faults", json={"retryAfterS": 1, "rules": [rule]})
            assert reply.status_code == 200, reply.text
            assert (await self.graph.organization.get()).value
            injected = (await control.get(f"{URL}/control/faults/injected")).json()
            assert injected == {"tooManyRequests": 1}, injected
            await control.put(f"{URL}/control/faults", json={})


async def main(wanted):
    suite, failed = Suite(), []
    names = [name for name in dir(suite) if name.startswith("test_") and (not wanted or wanted in name)]
    for name in names:
        try:
            await getattr(suite, name)()
            print(f"ok      {name}")
        except Exception:  # noqa: BLE001 - every failure is shown, and the next test runs
            failed.append(name)
            print(f"FAILED  {name}")
            traceback.print_exc(file=sys.stdout)
    print(f"{len(names) - len(failed)} of {len(names)} passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "")))
