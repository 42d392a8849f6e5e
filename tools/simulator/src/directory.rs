//! The directory: the organisation, its users, and the settings of their mailboxes.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::clock;
use crate::odata::{Query, Select, token};
use crate::server::{Answer, ApiError, Call, collection, json_answer};
use crate::tenant::id::Named;
use crate::tenant::{Kind, Mailbox, User};

const PAGE: usize = 100;
const PAGE_MAX: usize = 999;

/// Properties that `/users` returns without `$select` (Graph: "List users").
const DEFAULT_PROPERTIES: [&str; 11] = [
    "businessPhones",
    "displayName",
    "givenName",
    "id",
    "jobTitle",
    "mail",
    "mobilePhone",
    "officeLocation",
    "preferredLanguage",
    "surname",
    "userPrincipalName",
];

/// Properties that need one call per user: 501 on the collection (Graph: "List users").
const NOT_ON_COLLECTION: [&str; 11] = [
    "aboutme",
    "birthday",
    "hiredate",
    "interests",
    "mailboxsettings",
    "mysite",
    "pastprojects",
    "preferredname",
    "responsibilities",
    "schools",
    "skills",
];

const EXCHANGE_PLAN: &str = "efb87545-963c-4e0d-99df-69c6916d9eb0";
const SKU: &str = "05e9a617-0261-4cee-bb44-138d3ef5d965";

/// `GET /organization`
pub fn organizations(call: &Call) -> Answer {
    let tenant = &call.state.tenant;
    let row = json!({
        "id": tenant.id,
        "displayName": tenant.display_name,
        "tenantType": "AAD",
        "countryLetterCode": "DE",
        "preferredLanguage": "en",
        "createdDateTime": clock::iso(clock::BEGIN),
        "onPremisesSyncEnabled": null,
        "defaultUsageLocation": "DE",
        "verifiedDomains": [
            {"name": "contoso.onmicrosoft.com", "isDefault": false, "isInitial": true, "type": "Managed",
             "capabilities": "Email, OfficeCommunicationsOnline"},
            {"name": tenant.domain, "isDefault": true, "isInitial": false, "type": "Managed", "capabilities": "Email"},
        ],
        "assignedPlans": [exchange_plan()],
        "technicalNotificationMails": [],
    });
    let Value::Object(mut row) = row else { unreachable!("an object was just made") };
    call.query.select().retain(&mut row);
    Ok(collection(call.context("organization"), vec![Value::Object(row)], Vec::new()))
}

fn exchange_plan() -> Value {
    json!({"service": "exchange", "servicePlanId": EXCHANGE_PLAN, "capabilityStatus": "Enabled",
           "assignedDateTime": clock::iso(clock::BEGIN)})
}

/// `GET /subscribedSkus`
pub fn subscribed_skus(call: &Call) -> Answer {
    let licensed = call.state.tenant.users().iter().filter(|user| user.kind.is_licensed()).count();
    let row = json!({"id": format!("{}_{SKU}", call.state.tenant.id), "skuId": SKU, "skuPartNumber": "SPE_E3",
        "capabilityStatus": "Enabled", "appliesTo": "User", "consumedUnits": licensed,
        "prepaidUnits": {"enabled": licensed + 10, "suspended": 0, "warning": 0}, "servicePlans": [service_plan()]});
    Ok(collection(call.context("subscribedSkus"), vec![row], Vec::new()))
}

fn service_plan() -> Value {
    json!({"servicePlanId": EXCHANGE_PLAN, "servicePlanName": "EXCHANGE_S_ENTERPRISE", "provisioningStatus": "Success",
           "appliesTo": "User"})
}

/// Where a listing of users continues.
#[derive(Serialize, Deserialize)]
struct UsersToken {
    from: usize,
}

/// `GET /users`
pub fn list_users(call: &Call) -> Answer {
    let users = call.state.tenant.users();
    list(call, &users, "users")
}

/// `GET /directory/deletedItems/microsoft.graph.user`
pub fn list_deleted_users(call: &Call) -> Answer {
    let users: Vec<_> = call.state.tenant.all_users().into_iter().filter(|user| user.is_deleted()).collect();
    list(call, &users, "directory/deletedItems/microsoft.graph.user")
}

fn list(call: &Call, users: &[std::sync::Arc<User>], path: &str) -> Answer {
    let select = call.query.select();
    check_collection(call, &select)?;
    let size = call.page_size(PAGE, PAGE_MAX)?;
    let from = match call.query.get("$skiptoken") {
        Some(text) => token::open::<UsersToken>(text).map(|token| token.from).ok_or_else(bad_skip_token)?,
        None => 0,
    };
    let filter = call.query.filter()?;
    let all: Vec<Value> = users.iter().map(|user| user_json(user)).collect();
    let mut matching: Vec<Value> =
        all.into_iter().filter(|user| filter.as_ref().is_none_or(|filter| filter.holds(user))).collect();
    for (property, descending) in call.query.order_by().into_iter().rev() {
        matching.sort_by_key(|user| user[&property].as_str().unwrap_or_default().to_lowercase());
        if descending {
            matching.reverse();
        }
    }
    let total = matching.len();
    let rows: Vec<Value> = matching.into_iter().skip(from).take(size).map(|user| shown(user, &select)).collect();
    let mut annotations = Vec::new();
    // Only the first page has the count (Graph: "Paging").
    if call.query.is_true("$count") && from == 0 {
        annotations.push(("@odata.count", json!(total)));
    }
    if from + size < total {
        let mut query = call.query.clone();
        query.set("$skiptoken", Some(token::seal(&UsersToken { from: from + size })));
        annotations.push(("@odata.nextLink", json!(call.link(path, &query))));
    }
    Ok(collection(call.context("users"), rows, annotations))
}

/// The state of the directory that a client knows.
#[derive(Serialize, Deserialize)]
struct DeltaToken {
    change: u64,
    select: String,
}

/// `GET /users/delta`: first all users in one page, then those that changed since
pub fn users_delta(call: &Call) -> Answer {
    let token = call.query.get("$deltatoken").or_else(|| call.query.get("$skiptoken"));
    let known = match token {
        Some(text) => token::open::<DeltaToken>(text).ok_or_else(bad_skip_token)?,
        None => DeltaToken { change: 0, select: call.query.get("$select").unwrap_or_default().to_owned() },
    };
    let select = Select::parse(Some(&known.select));
    let users = call.state.tenant.all_users();
    let latest = users.iter().map(|user| user.change()).max().unwrap_or(0);
    let changed = users.iter().filter(|user| user.change() > known.change);
    let rows = changed.filter(|user| known.change > 0 || !user.is_deleted()).map(|user| match user.is_deleted() {
        true => json!({"id": user.id, "@removed": {"reason": "changed"}}),
        false => {
            let mut row = shown(user_json(user), &select);
            row["id"] = json!(user.id);
            row
        }
    });
    let mut query = Query::default();
    query.set("$deltatoken", Some(token::seal(&DeltaToken { change: latest, select: known.select.clone() })));
    let link = call.link("users/delta", &query);
    Ok(collection(call.context("users"), rows.collect(), vec![("@odata.deltaLink", json!(link))]))
}

fn bad_skip_token() -> ApiError {
    ApiError::bad_request(
        "Directory_ExpiredPageToken",
        "The specified page token value has expired and can no longer be included in your request.",
    )
}

/// Refuses query options that a collection of the directory does not support.
fn check_collection(call: &Call, select: &Select) -> Result<(), ApiError> {
    if let Some(name) = NOT_ON_COLLECTION.iter().find(|name| select.names(name)) {
        return Err(ApiError::new(
            StatusCode::NOT_IMPLEMENTED,
            "NotImplemented",
            format!("The property '{name}' cannot be selected on a collection of users."),
        ));
    }
    if call.query.get("$skip").is_some() {
        return Err(ApiError::bad_request("Request_BadRequest", "'$skip' is not supported by the service."));
    }
    let eventual =
        call.headers.get("consistencylevel").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"eventual"));
    let filter = call.query.filter()?;
    let advanced = filter.as_ref().is_some_and(|filter| filter.is_advanced())
        || call.query.get("$search").is_some()
        || filter.is_some() && call.query.get("$orderby").is_some();
    if (advanced && !(eventual && call.query.is_true("$count"))) || (call.query.is_true("$count") && !eventual) {
        return Err(ApiError::bad_request(
            "Request_UnsupportedQuery",
            "Operator is not supported because the 'ConsistencyLevel:eventual' header is missing. \
             Refer to https://aka.ms/graph-docs/advanced-queries for more information",
        ));
    }
    Ok(())
}

/// `GET /users/$count`
pub fn count_users(call: &Call) -> Answer {
    if !call.headers.get("consistencylevel").is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"eventual")) {
        return Err(ApiError::bad_request("Request_BadRequest", "$count is not currently supported."));
    }
    Ok(text(call.state.tenant.users().len().to_string()))
}

fn text(body: String) -> Response {
    ([(axum::http::header::CONTENT_TYPE, "text/plain")], body).into_response()
}

/// `GET /users/{u}`
pub fn get_user(call: &Call) -> Answer {
    let user = call.user()?;
    let select = call.query.select();
    let mut body = user_json(&user);
    if select.names("mailboxSettings") {
        let settings = call.with_mailbox(|mailbox| Ok(settings_json(call, &user, mailbox)))?;
        body["mailboxSettings"] = settings;
    }
    let mut body = shown(body, &select);
    body["@odata.context"] = json!(call.context("users/$entity"));
    Ok(json_answer(StatusCode::OK, &body))
}

fn shown(user: Value, select: &Select) -> Value {
    let Value::Object(mut user) = user else { return user };
    if select.is_explicit() {
        let names = select.named();
        user.retain(|key, _| names.contains(&key.to_ascii_lowercase()));
    } else {
        user.retain(|key, _| DEFAULT_PROPERTIES.contains(&key.as_str()));
    }
    Value::Object(user)
}

fn user_json(user: &User) -> Value {
    let (principal, display) = (user.principal_name(), user.display_name());
    let (given, surname) = display.split_once(' ').unwrap_or((&display, ""));
    let locale = user.mailbox().map(|mailbox| mailbox.lock().locale);
    let mail = match user.kind {
        Kind::Unlicensed => None,
        // Guests have an address of their home organisation.
        Kind::Guest => Some("eve@fabrikam.com".to_owned()),
        _ => Some(principal.clone()),
    };
    let licensed = user.kind.is_licensed();
    let plans = if licensed { vec![exchange_plan()] } else { Vec::new() };
    let licences = if licensed { vec![json!({"skuId": SKU, "disabledPlans": []})] } else { Vec::new() };
    let user_type = match user.kind {
        Kind::NullType => None,
        Kind::Guest => Some("Guest"),
        _ => Some("Member"),
    };
    json!({
        "id": user.id,
        "userPrincipalName": principal,
        "mail": mail,
        "displayName": display,
        "givenName": given,
        "surname": surname,
        "jobTitle": null,
        "mobilePhone": null,
        "officeLocation": null,
        "businessPhones": [],
        "preferredLanguage": locale.map(|locale| locale.tag()),
        "accountEnabled": !matches!(user.kind, Kind::Shared | Kind::Room | Kind::Equipment),
        "userType": user_type,
        "assignedLicenses": licences,
        "assignedPlans": plans,
        "proxyAddresses": mail.iter().map(|mail| format!("SMTP:{mail}")).collect::<Vec<_>>(),
        "mailNickname": principal.split('@').next(),
        "usageLocation": "DE",
        "createdDateTime": clock::iso(user.created),
        "deletedDateTime": user.is_deleted().then(|| clock::iso(clock::now())),
        "onPremisesSyncEnabled": (user.kind == Kind::OnPremises).then_some(true),
        "showInAddressList": null,
        "preferredDataLocation": null,
    })
}

/// `GET /users/{u}/licenseDetails`
pub fn license_details(call: &Call) -> Answer {
    let user = call.user()?;
    let row = || json!({"id": SKU, "skuId": SKU, "skuPartNumber": "SPE_E3", "servicePlans": [service_plan()]});
    let rows = if user.kind.is_licensed() { vec![row()] } else { Vec::new() };
    Ok(collection(call.context(&format!("users('{}')/licenseDetails", user.id)), rows, Vec::new()))
}

/// `GET /users/{u}/mailboxSettings`, and its single properties
pub fn mailbox_settings(call: &Call) -> Answer {
    let user = call.user()?;
    let settings = call.with_mailbox(|mailbox| Ok(settings_json(call, &user, mailbox)))?;
    let context = call.context(&format!("users('{}')/mailboxSettings", user.id));
    let mut body = match call.route.rest.first() {
        None => {
            let Value::Object(mut settings) = settings else { unreachable!("settings are an object") };
            let select = call.query.select();
            if select.is_explicit() {
                settings.retain(|key, _| select.names(key));
            }
            Value::Object(settings)
        }
        Some(name) => {
            let object = settings.as_object().expect("settings are an object");
            let found = object.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            match found.map(|(_, value)| value.clone()) {
                Some(Value::Object(value)) => Value::Object(value),
                Some(value) => json!({"value": value}),
                None => return Err(ApiError::unknown_segment(name)),
            }
        }
    };
    body["@odata.context"] = json!(context);
    Ok(json_answer(StatusCode::OK, &body))
}

fn settings_json(call: &Call, user: &User, mailbox: &Mailbox) -> Value {
    let locale = mailbox.locale;
    let purpose = if call.state.tenant.switches().user_purpose_is_object {
        json!({"value": user.kind.purpose()})
    } else {
        json!(user.kind.purpose())
    };
    let archive = mailbox.well_known("archive").map(|key| Named::Folder(key).encode(&mailbox.guid));
    let never = |hour: u32| json!({"dateTime": format!("2026-03-14T{hour:02}:00:00.0000000"), "timeZone": "UTC"});
    let mut settings = json!({
        "archiveFolder": archive,
        "timeZone": locale.time_zone(),
        "delegateMeetingMessageDeliveryOptions": "sendToDelegateOnly",
        "dateFormat": if locale.tag() == "en-US" { "M/d/yyyy" } else { "dd.MM.yyyy" },
        "timeFormat": if locale.tag() == "en-US" { "h:mm tt" } else { "HH:mm" },
        "automaticRepliesSetting": {
            "status": "disabled", "externalAudience": "all", "internalReplyMessage": "", "externalReplyMessage": "",
            "scheduledStartDateTime": never(7), "scheduledEndDateTime": never(8),
        },
        "language": {"locale": locale.tag(), "displayName": locale.display_name()},
        "workingHours": {
            "daysOfWeek": ["monday", "tuesday", "wednesday", "thursday", "friday"],
            "startTime": "08:00:00.0000000", "endTime": "17:00:00.0000000", "timeZone": {"name": locale.time_zone()},
        },
        "userPurpose": purpose,
    });
    let object = settings.as_object_mut().expect("an object was just made");
    object.extend(mailbox.settings.iter().map(|(name, value)| (name.clone(), value.clone())));
    settings
}

/// `PATCH /users/{u}/mailboxSettings`
pub fn update_mailbox_settings(call: &Call) -> Answer {
    let user = call.user()?;
    let changes: serde_json::Map<String, Value> = call.json()?;
    let settings = call.with_mailbox(|mailbox| {
        let known = settings_json(call, &user, mailbox);
        for (name, value) in changes {
            // The purpose of the mailbox and the archive folder are read-only.
            let writable = known.get(&name).is_some() && name != "userPurpose" && name != "archiveFolder";
            match writable || name.starts_with('@') {
                true => drop(mailbox.settings.insert(name, value)),
                false => {
                    return Err(ApiError::bad_request(
                        "ErrorInvalidPropertySet",
                        format!("The property '{name}' cannot be set."),
                    ));
                }
            }
        }
        Ok(settings_json(call, &user, mailbox))
    })?;
    Ok(json_answer(StatusCode::OK, &settings))
}
