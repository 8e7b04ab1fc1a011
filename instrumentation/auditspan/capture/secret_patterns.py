# SPDX-License-Identifier: Apache-2.0
"""What secrets look like: words of names, and the forms of tokens. Pure data and compiled patterns, no I/O.

The forms of tokens follow what their issuers document and what well-kept detectors know of them: gitleaks
(config/gitleaks.toml), detect-secrets (plugins/*.py) and trufflehog (pkg/detectors). Those look for secrets in source
code, where a false alarm costs a person's time; here a missed secret is signed and kept for years, so that we ask for
fewer characters than they do (a token may have been cut before it reached us), and never for entropy alone.

Every pattern takes linear time: a run of characters is either consumed as a whole or bounded. Python 3.10 has no
possessive quantifiers, therefore no pattern asks for something behind an unbounded run that it could give back.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, NamedTuple


def any_of(words: Iterable[str]) -> str:
    """Return a pattern for any of some literal words, as a trie: about three times as fast as a flat alternation."""
    root: dict[str, dict] = {}  # type: ignore[type-arg]
    for word in words:
        node = root
        for char in word:
            node = node.setdefault(char, {})
        node[""] = {}

    def write(node: dict[str, dict]) -> str:  # type: ignore[type-arg]
        if "" in node:  # a shorter word decides: what begins with it needs no branch of its own
            return ""
        branches = [re.escape(char) + write(rest) for char, rest in sorted(node.items())]
        return branches[0] if len(branches) == 1 else "(?:" + "|".join(branches) + ")"

    return write(root)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# -- names -----------------------------------------------------------------------------------------------------
# After sentry-sdk (sentry_sdk/scrubber.py, DEFAULT_DENYLIST) and detect-secrets (plugins/keyword.py, DENYLIST), without
# what is personal but no secret (addresses, session.id of the semantic conventions).

STRONG_WORDS: Final = _words(
    "password passwords passwd passwort passphrase passphrases passcode passcodes passkey pwd userpwd secret secrets"
    " apikey apikeys token credential credentials creds authorization authorisation cookie cookies setcookie bearer jwt"
    " totp otp csrf xsrf mnemonic cvv cvc dsn connectionstring connstring connstr phpsessid jsessionid sessionid"
    " sharedaccesssignature kennwort contraseña contrasena senha wachtwoord motdepasse пароль 密码 パスワード"
)
"""A name with one of these words is that of a secret, unless its last word says that it is something about it."""

JOINED_ENDINGS: Final = (
    "password", "passwd", "passphrase", "passcode", "secret", "apikey", "token", "credential", "credentials",
    "accesskey", "secretkey", "privatekey", "accountkey", "signingkey", "encryptionkey", "masterkey", "authkey",
)  # fmt: skip
"""Words that end so are secrets without a border: ``dbpassword``, ``accesstoken``."""

KEY_KINDS: Final = _words(
    "api access private secret account auth client service encryption encrypt decryption signing sign master shared ssh"
    " subscription license webhook app application consumer deploy session hmac aes rsa symmetric sas functions admin"
    " root developer integration write server gpg pgp wallet recovery streaming ingest"
)
"""Words that make the ``key`` behind them a secret one. A key alone, a primary or a cache key is none."""

SECRET_PAIRS: Final = frozenset(
    [
        *(f"{kind} code" for kind in ["auth", "authorization", "verification", "recovery", "backup", "security", "access", "device", "mfa"]),
        *(f"{kind} codes" for kind in ("recovery", "backup")),
        *(f"{kind} pin" for kind in ["user", "card", "sim", "account", "security", "access", "login", "device"]),
        *(f"{kind} pass" for kind in ["db", "database", "user", "mysql", "pg", "postgres", "redis", "smtp", "ftp", "sftp", "mail", "email", "imap", "proxy"]),
        *(f"{kind} pass" for kind in ["admin", "root", "http", "https", "rabbitmq", "amqp", "mongo", "ldap", "ssh", "key", "app"]),
        *(f"{kind} tokens" for kind in ["access", "refresh", "auth", "api", "bearer", "id", "session"]),
        "connection string", "connection strings", "conn string", "conn str", "connection uri", "connection url",
        "seed phrase", "recovery phrase", "reset link", "magic link", "connect sid", "set cookie", "pass word",
        "pass phrase", "basic auth", "http auth", "proxy auth", "password hash", "password hashes", "password digest",
    ]
)  # fmt: skip
"""Two last words that are a secret together."""

WHOLE_NAMES: Final = _words("auth pass pin pw passw")
"""Last parts of a name that are a secret's name only when they are all of it."""

ABOUT_WORDS: Final = _words(
    "name names file files path paths dir directory folder count counts length len size type types kind url uri urls"
    " endpoint host policy policies rule rules age ttl lifetime expires expired expiry expiration expiring exp at on by in"
    " created updated changed rotated rotation deleted used uses usage limit limits budget max min version field fields"
    " param parameter header required enabled disabled allowed valid validity verified present missing set provider"
    " manager store storage backend arn ref reference hint hints id ids uid uuid index position prefix suffix strength"
    " format encoding algorithm alg method mode scheme status state error errors reset resets request requests response"
    " attempt attempts failed failures ok found scope scopes issuer audience subject class operation action event source"
    " hash digest fingerprint sha256 checksum kid schema label title description placeholder consent banner domain"
    " domains samesite secure httponly column table row rows exists empty protected needed hidden visible is has was"
    " stream sink metadata info details per second total prompt completion input output cached sent read bucket claims"
    " payload server servers service user username client owner address port region removed verifier"
)
"""A last word that says: not the secret, something about it (``token_type``, ``password_changed_at``)."""

VALUE_WORDS: Final = _words(
    "value values data plain plaintext raw current new old text content contents default primary secondary b64"
    " base64 encoded"
)
"""A last part of a dotted name that says nothing by itself: the part before it decides (``password.new``)."""

QUERY_NAMES: Final = _words(
    "sig signature code key auth ticket assertion samlresponse samlrequest hmac sid st x-amz-signature x-goog-signature"
    " x-amz-security-token x-amz-credential awsaccesskeyid x-ms-signature x-oss-signature hdnts hdnea"
)
"""Parameters of a URL's query that open what the URL names, beside those whose name is that of a secret.

``AWSAccessKeyId``, ``Signature``, ``sig`` and ``X-Goog-Signature`` are those of the OpenTelemetry semantic conventions
(url.full, url.query). A signature is one here and nowhere else: whoever has a signed URL may use it, whereas that of a
webhook proves where a body came from and opens nothing.
"""

# -- words around a value in a text ----------------------------------------------------------------------------
PROSE_WORDS: Final = _words(
    "must is was are were be been not the a an has have had should shall may might required missing invalid incorrect"
    " expired too no unexpected expected cannot can could wrong unknown bad empty failed failure denied user users please"
    " your this that it its length minimum maximum at for of to in on by with from and or none ok okay valid true false"
    " yes found given provided unauthorized unauthorised forbidden accepted rejected revoked refused changed rotated"
    " updated created deleted reset unable error unsupported disabled enabled optional needed malformed mismatch only"
    " name string identifier number integer value field parameter when if all any new old does did will would never click see use"
    " check reading"
)
"""First words behind ``label:`` that make it a sentence: ``token: unexpected end of input``."""

NO_SECRETS: Final = _words(
    "none null nil true false undefined redacted removed hidden masked filtered empty unset n/a na yes no str string"
    " bytes bytearray int integer number float bool boolean any object optional secretstr dict list text varchar"
)
"""Values that say that there is none, or that stand for one (types, masks)."""

# -- tokens that need no label ---------------------------------------------------------------------------------


class Token(NamedTuple):
    """One kind of token: `hints` are lower-case parts of which it has at least one; group 1, if any, is the secret.

    The pattern is compiled when a text first has one of the hints: all of them would cost each audited process some
    milliseconds at its start, and most processes need none.
    """

    hints: tuple[str, ...]
    pattern: str


def _begin(prefix: str, width: int) -> str:
    """`prefix` where a word begins: also behind an escaped line end and behind a percent-encoded character.

    The border is asked for behind the prefix, so that the regex engine can look for the prefix first.
    """
    dots = "." * width
    return rf"{prefix}(?:(?<![A-Za-z0-9]{dots})|(?<=\\[nrt]{dots})|(?<=%[0-9A-Fa-f][0-9A-Fa-f]{dots}))"


def _token(hints: str, *patterns: str) -> Token:
    return Token(tuple(hints.split()), "|".join(patterns))


_SLASH = r"(?:/|%2[Ff])"

TOKENS: Final[dict[str, Token]] = {
    # clouds
    "aws": _token("akia asia abia acca", _begin("(?:AKIA|ASIA|ABIA|ACCA)", 4) + "[A-Z0-9]{12,124}"),
    "aws-bedrock": _token(
        "absk bedrock-api-key-", "ABSK[A-Za-z0-9+/]{40,}={0,2}", "bedrock-api-key-[A-Za-z0-9+/=]{16,}"
    ),
    "google-api-key": _token("aiza", r"AIza[\w-]{24,}"),
    "google-oauth": _token(
        "ya29. gocspx- 1//0", r"ya29\.[\w.-]{16,}|GOCSPX-[\w-]{16,}", _begin("1//0", 4) + r"[\w-]{24,}"
    ),
    "azure-ad": _token("[0-9]q~", r"[\w~.-]{3}\dQ~[\w~.-]{20,}"),
    "digitalocean": _token("doo_v1_ dop_v1_ dor_v1_", "do[opr]_v1_[a-f0-9]{16,}"),
    "cloudflare": _token("v1.0-", r"v1\.0-[a-f0-9]{24}-[a-f0-9]{16,}"),
    "databricks": _token("dapi", _begin("dapi", 4) + r"[a-f0-9]{16,}(?:-\d)?"),
    "heroku": _token("hrku-aa", r"HRKU-AA[\w-]{16,}"),
    "vault": _token("hvs. hvb. hvr.", _begin(r"hv[sbr]\.", 4) + r"[\w-]{16,}"),
    "terraform": _token(".atlasv1.", r"[A-Za-z0-9]{14}\.atlasv1\.[\w=-]{16,}"),
    "doppler": _token("dp.pt. dp.st. dp.sa. dp.ct.", r"dp\.(?:pt|st|sa|ct)\.[\w.-]{16,}"),
    "pulumi": _token("pul-", _begin("pul-", 4) + "[a-f0-9]{16,}"),
    "planetscale": _token("pscale_tkn_ pscale_oauth_ pscale_pw_", r"pscale_(?:tkn|oauth|pw)_[\w=.-]{16,}"),
    "supabase": _token("sbp_ sb_secret_", _begin("sbp_", 4) + r"[a-f0-9]{16,}", r"sb_secret_[\w-]{16,}"),
    "tailscale": _token("tskey-", r"tskey-[\w-]{12,}"),
    "flyio": _token("fo1_ fm2_ fm1r_ fm1a_", _begin("f(?:o1|m2)_", 4) + r"[\w+/=-]{24,}", r"fm1[ar]_[\w+/=-]{24,}"),
    # source code and packages
    "github": _token("ghp_ gho_ ghu_ ghs_ ghr_", "gh[pousr]_[A-Za-z0-9]{12,}"),
    "github-pat": _token("github_pat_", r"github_pat_\w{16,}"),
    "gitlab": _token(
        "glpat- gloas- gldt- glrt- glcbt- glptt- glft- glimt- glagent- glsoat- glffct- gr1348941",
        r"gl(?:pat|oas|dt|rt|cbt|ptt|ft|imt|agent|soat|ffct)-[\w.-]{16,}|GR1348941[\w-]{16,}",
    ),
    "npm": _token("npm_", _begin("npm_", 4) + "[A-Za-z0-9]{24,}"),
    "pypi": _token("pypi-ag", r"pypi-Ag[\w-]{24,}"),
    "rubygems": _token("rubygems_", "rubygems_[a-f0-9]{16,}"),
    "docker": _token("dckr_pat_ dckr_oat_", r"dckr_[po]at_[\w-]{16,}"),
    "sentry": _token("sntrys_ sntryu_", r"sntrys_[\w+/=-]{16,}|sntryu_[a-f0-9]{16,}"),
    "grafana": _token("glsa_ glc_", r"glsa_\w{16,}", _begin("glc_", 4) + "[A-Za-z0-9+/]{24,}={0,3}"),
    "newrelic": _token("nrak- nrii- nrjs-", r"NR(?:AK|II|JS)-[\w-]{16,}"),
    "postman": _token("pmak-", r"PMAK-[a-fA-F0-9-]{16,}"),
    "figma": _token("figd_", r"figd_[\w-]{16,}"),
    # messages
    "slack": _token("xox xapp-", r"xox[a-z](?:\.xox[a-z])?-[\w-]{10,}|xapp-\d-[\w-]{10,}"),
    "slack-webhook": _token(
        "hooks.slack.com", rf"hooks\.slack\.com{_SLASH}(?:services|workflows|triggers){_SLASH}([\w/+%-]{{16,}})"
    ),
    "discord-webhook": _token(
        "webhooks/ webhooks%2f",
        rf"discord(?:app)?\.com{_SLASH}api{_SLASH}(?:v\d+{_SLASH})?webhooks{_SLASH}\d+{_SLASH}([\w-]{{16,}})",
    ),
    # no hint of letters: see DOTTED
    "discord-bot": _token(
        "", r"(?:(?<![\w.-])|(?<=\\[nrt])|(?<=%[0-9A-Fa-f][0-9A-Fa-f]))[MNO][\w-]{23,27}\.[\w-]{6}\.[\w-]{24,40}"
    ),
    "telegram": _token(":aa %3aaa", r"(?<![0-9])[0-9]{6,12}(?::|%3[Aa])AA[\w-]{24,}"),
    "teams-webhook": _token("webhook.office.com", rf"webhook\.office\.com{_SLASH}webhookb2{_SLASH}([\w@/%.-]{{16,}})"),
    "automation-webhook": _token(  # whoever knows the address can start the workflow
        "hooks.zapier.com .make.com .integromat.com",
        rf"hooks\.zapier\.com{_SLASH}hooks{_SLASH}catch{_SLASH}([\w/%-]{{8,}})",
        rf"hook\.(?:[a-z0-9]+\.)?(?:make|integromat)\.com{_SLASH}(?P<make>[\w-]{{16,}})",
    ),
    "twilio": _token("sk[0-9a-f]{8}", _begin("SK", 2) + "[0-9a-f]{32}"),
    "sendgrid": _token("sg.", _begin(r"SG\.", 3) + r"[\w-]{16,}(?:\.[\w-]{1,})?"),
    "mailgun": _token("key-[0-9a-f]{8}", _begin("key-", 4) + "[0-9a-f]{32}", _begin("pubkey-", 7) + "[0-9a-f]{32}"),
    "mailchimp": _token("-us[0-9]", r"(?<![0-9a-f])[0-9a-f]{32}-us[0-9]{1,2}"),
    "brevo": _token("xkeysib- xsmtpsib-", r"x(?:key|smtp)sib-[a-f0-9]{16,}[\w-]*"),
    # money and shops
    "stripe": _token("sk_ rk_", r"[sr]k_(?:live|test|prod)_[A-Za-z0-9]{10,}"),
    "webhook-secret": _token("whsec_ whsk_", "whs(?:ec|k)_[A-Za-z0-9+/_-]{16,}={0,2}"),
    "shopify": _token("shpat_ shpca_ shppa_ shpss_ shpua_", "shp(?:at|ca|pa|ss|ua)_[A-Fa-f0-9]{16,}"),
    "square": _token("sq0atp- sq0csp-", r"sq0(?:atp|csp)-[\w-]{16,}"),
    # models
    "anthropic": _token("sk-ant-", r"sk-ant-[\w-]{12,}"),
    "openai": _token("sk-", _begin("sk-", 3) + r"(?!ant-)(?=[a-z-]{0,24}[A-Z0-9])[\w-]{20,}"),
    "huggingface": _token("hf_ api_org_", _begin("hf_", 3) + "[A-Za-z0-9]{24,}", "api_org_[A-Za-z0-9]{24,}"),
    "groq": _token("gsk_", _begin("gsk_", 4) + "[A-Za-z0-9]{24,}"),
    "xai": _token(
        "xai- pplx- r8_", _begin("(?:xai-|pplx)", 4) + "-?[A-Za-z0-9]{32,}", _begin("r8_", 3) + "[A-Za-z0-9]{32,}"
    ),
    # work
    "airtable": _token("pat[a-z0-9]{14}\\.", _begin("pat", 3) + r"[A-Za-z0-9]{14}\.[a-f0-9]{16,}"),
    "notion": _token("ntn_ secret_", _begin("ntn_", 4) + "[A-Za-z0-9]{24,}", _begin("secret_", 7) + "[A-Za-z0-9]{32,}"),
    "linear": _token("lin_api_ lin_oauth_", "lin_(?:api|oauth)_[A-Za-z0-9]{16,}"),
    "atlassian": _token("atatt3 atctt3 atbb", r"AT[AC]TT3[\w=-]{16,}", _begin("ATBB", 4) + r"[A-Za-z0-9]{20,}"),
    "hubspot": _token("pat-", _begin("pat-", 4) + r"(?:na|eu|ap)\d-[0-9a-fA-F-]{16,}"),
    "dropbox": _token("sl.", _begin(r"sl\.", 3) + r"[\w=-]{60,}"),
    "facebook": _token("eaa[a-z0-9]{40}", _begin("EAA[A-Z]", 4) + "[A-Za-z0-9]{60,}"),
    "password-hash": _token(  # what modular crypt formats and Django store; it can be guessed offline
        "$2a$ $2b$ $2y$ $argon2 $5$ $6$ $y$ pbkdf2_sha",
        r"\$2[aby]\$\d\d\$[./A-Za-z0-9]{20,}|\$argon2(?:id|i|d)\$[\w$=,+/.-]{20,}",
        r"\$(?:5|6|y)\$[./A-Za-z0-9$=]{20,}|pbkdf2_sha\d+\$\d+\$[\w+/=.$-]{20,}",
    ),
    "1password": _token("ops_eyj", "ops_eyJ[A-Za-z0-9+/=_-]{24,}"),
    "age": _token("age-secret-key-1", "AGE-SECRET-KEY-1[A-Z0-9]{16,}"),
}

JWT: Final = re.compile(  # RFC 7515, 7516: three or five parts; what goes before may not belong to the same run
    r"eyJ(?:(?<![\w=-]...)|(?<=\\[nrt]...)|(?<=%[0-9A-Fa-f][0-9A-Fa-f]...))[\w=-]{8,}(?:\.[\w=-]*){1,4}"
)
DOTTED: Final = re.compile(TOKENS["discord-bot"].pattern)
"""The only token without a word of its own to look for."""

# -- where secrets stand ---------------------------------------------------------------------------------------
KEY_BLOCK: Final = re.compile(  # RFC 7468, OpenPGP; the body is all up to the next five dashes
    r"-----BEGIN(?:[ +A-Z0-9]|%20){1,60}PRIVATE(?: |\+|%20)KEY(?:(?: |\+|%20)BLOCK)?-----"
    r"(?P<body>[^-]*(?:-(?!----)[^-]*)*)(?P<end>-----END[^-\n]{1,80}-----)?"
)
# RFC 3986 userinfo. A password with a slash in it should be percent-encoded and often is not: then the next @ ends it.
URL_USER: Final = re.compile(
    r"(?<=://)(?P<s>[^\s/?#@\"'<>\[\]:]{0,128}:[^\s/?#\"'<>]{1,256}"
    r"|[^\s/?#@\"'<>\[\]:]{0,64}:(?!\d{1,5}[/?#])[^\s@\"'<>]{1,128}|[^\s/?#@\"'<>\[\]:]{20,256})(?=@)"
)
URL_USER_ENCODED: Final = re.compile(
    r"(?i)%(?:25){0,3}3A(?:%(?:25){0,3}2F){2}(?P<s>(?:(?!%(?:25){0,3}(?:2F|40))[^\s\"'<>&/@]){1,160})(?=@|%(?:25){0,3}40)"
)
SCHEMES: Final = re.compile(r"(?i)\b(?P<scheme>bearer|basic|ssws)(?:[ \t:=]|%20|\+){1,4}[\"']?(?P<s>[\w.~+/=-]{6,})")
CURL_USER: Final = re.compile(r"(?<![\w-])(?:-u|--user|--proxy-user|-U)[ =]{1,3}[\"']?[^\s:\"']{1,64}:(?P<s>[^\s\"']+)")
XML: Final = re.compile(r"<(?P<name>[A-Za-z][\w.:-]{0,80})(?:\s[^<>]{0,200})?>(?P<s>[^<]+)</")
IDENTIFIED: Final = re.compile(  # SQL: CREATE USER … IDENTIFIED BY '…', ALTER ROLE … PASSWORD '…'; and prose
    r"(?i)\b(?:identified[ \t]{1,4}(?:with[ \t]{1,4}\S{1,40}[ \t]{1,4})?by(?:[ \t]{1,4}password)?"
    r"|(?:password|passwd|passphrase|passcode|pwd)(?:[ \t]{1,3}(?:is|was|to|with|value))?)"
    r"[ \t]{1,4}(?P<q>[\"'`])(?P<s>[^\s\"'`]{1,256})(?P=q)"
)
NEAR: Final = re.compile(  # a word that announces a secret, at most three more, then something that looks random
    r"(?i)(?:passw(?:or)?d|passphrase|passcode|pwd|secret|token|api[ _-]?key|access[ _-]?key|credential|jwt|bearer)s?"
    r"[ \t]{1,3}(?P<words>(?:[a-z]{1,12}[ \t:=]{1,3}){0,3})[\"'`(]?(?P<s>[\w+/=.~-]{12,})"
)
LABEL: Final = re.compile(  # name, separator, perhaps a quote; begins where a run of word characters begins
    r"(?:(?<![\w.\-%])|(?<=%[0-9A-Fa-f][0-9A-Fa-f]))"
    r"(?:(?P<name>[\w.\-]+)(?P<close>\\{0,7}[\"'`]\]?|%(?:25){0,3}22|\])?[ \t]{0,8}"
    r"(?:=>|:=|!?={1,3}|:(?!//)|%(?:25){0,3}3[DdAa]|(?(close),|(?!)))[ \t]{0,8}"
    r"|(?P<flag>--?[A-Za-z][\w.\-]+)[ \t]{1,8}(?!-))"
    r"(?P<open>[bBrRuUfF]{0,2}\\{0,7}[\"'`]|%(?:25){0,3}2[27])?"
)
NAMED: Final = re.compile(  # {"name": "DB_PASSWORD", "value": "…"}, how many tools list their settings
    r"(?P<name>[\w.\-]{1,128})\\{0,7}[\"'][ \t]{0,4},\s{0,8}\\{0,7}[\"']value\\{0,7}[\"'][ \t]{0,4}[:=][ \t]{0,4}(?P<open>\\{0,7}[\"'])"
)
UNQUOTED: Final = re.compile(  # up to a blank, or what separates fields: a password may have all of them in it
    r"(?:[^\s\"'`&;,\\<]+|&(?!amp;|[\w.\-%\[\]]{1,80}=)|;(?!\s|$|[\w .\-]{1,60}=)|,(?!\s|$|[\"'{\[]|[\w.\-]{1,60}[\"']?[=:])"
    r"|[\"'`](?![\s,;:.)\]}>&]|$)|\\(?![\"'nrt])|<(?!/))+"
)
UNQUOTED_ENCODED: Final = re.compile(r"(?:[^\s\"'<>&%]+|%(?!(?:25){0,3}(?:26|22|27|23|20|3[Bb]|0[AaDd]|7[Dd])))+")
LINE: Final = re.compile(r"(?:[^\"'\r\n\\]+|\"[^\"\r\n]*\"|\\(?![rn])[^\r\n]?)+")
AUTH_SCHEME: Final = re.compile(
    r"(?i)(?P<scheme>bearer|basic|token|ssws|apikey|api-key|bot|negotiate|ntlm|digest|oauth|hawk|signature|aws4-hmac-sha256"
    r"|sharedkey(?:lite)?|sharedaccesssignature|genie-?key|key)[ \t]+(?=\S)"
)
LISTED_SCHEMES: Final = _words("digest oauth hawk signature aws4-hmac-sha256 sharedaccesssignature")
"""Schemes whose credentials are a list of parameters: all of the line."""
STAND_IN: Final = re.compile(  # what stands for a value: ${NAME}, {{ name }}, %s, %(name)s, ?
    r"\$\{[A-Za-z_][\w.:-]*\}|\{\{[^{}]{1,80}\}\}|%[sdr]|%\(\w+\)s|\?|\{\}|<(?:[a-z][a-z _.-]*|[A-Z][A-Z _.-]*)>"
)
NAMED_STAND_IN: Final = re.compile(r"(?:\$|:|@|\{)(?P<name>[A-Za-z_][\w.]*)\}?")
CODE: Final = re.compile(  # source lines in a traceback: password = self.settings.password
    r"(?:Optional|Union|List|Dict|list|dict|tuple)\[.*|(?:self|cls|os|settings|config|request|args|kwargs|env|process\.env|secrets|getpass)\.[A-Za-z_][A-Za-z_.]*(?:[\[(].*)?"
)

# -- the first, cheap look -------------------------------------------------------------------------------------
INNOCENT: Final = re.compile(
    # short and without anything that separates a label from its value: no token is that short
    r"[^=:,%'\"`\s>-]{0,17}"
    # lower-case words, names and paths: a token has digits or capitals. Not for options: --password word
    r"|[a-z_./,() -]+"
    # hashes, commits, UUIDs, trace contexts, dates: never a secret without a label
    r"|(?:(?:(?:hmac-)?sha(?:1|224|256|384|512)|md5|git|hg|svn):|(?:[a-z_.]{1,40}/){1,4})?"
    r"(?:[0-9a-f]{7,128}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})|[0-9T:.Z+ /-]+"
)
_HINTS = [hint for token in TOKENS.values() for hint in token.hints]
TOKEN_HINT: Final = re.compile(
    "|".join([any_of([*(h for h in _HINTS if "[" not in h), "eyj", "-----begin"]), *(h for h in _HINTS if "[" in h)])
)
WORD_HINT: Final = re.compile(
    any_of(
        _words(
            "pass pwd secret token key auth cookie cred bearer basic ssws jwt otp csrf xsrf mnemonic cvv cvc dsn phrase sig"
            " hmac phpsessid jsessionid sessionid sid= assertion ticket saml x-amz- x-goog- awsaccess hdnts hdnea pw= pw:"
            " st= link identified connstr conn_str conn-str connectionstr connection_ connection- connection. code= code:"
            " code% code\" code' codes pin= pin: pin\" pin' pin% kennwort contrase senha wachtwoord пароль 密码 パスワード"
        )
    )
)
PLAIN: Final = re.compile("[a-z_./,()-]+")
"""A word of which no token consists: those have digits or capitals."""
BARE_HINT: Final = re.compile("basic|bearer|identified|pass[pcw]|pwd|ssws")
"""Words that announce a secret without any sign behind them."""
SEPARATOR: Final = re.compile(r"[=:'\"`>]|%|(?:^|\s)-|[\w./+~=-]{12}|\]")
