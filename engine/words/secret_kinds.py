"""How secrets look: one row a kind, as their issuers document them.

A row is a kind's name, literals of which one stands in every secret of that kind (what makes the
look for a hundred kinds cheap), and a pattern. Where the pattern has a group named `secret`, only
that is the secret. Every repetition is bounded or a single class: no text makes a pattern slow.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_UUID: Final = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"


class SecretKind(NamedTuple):
    """What is known of the secrets of one issuer."""

    name: str
    literals: tuple[str, ...]
    pattern: re.Pattern[str]


def _token(name: str, literals: str, pattern: str) -> SecretKind:
    """A token that stands for itself: no letter, digit or sign of base64 runs on beside it."""
    bounded = rf"(?<![A-Za-z0-9_+-]){pattern}(?![A-Za-z0-9_+-])"
    return SecretKind(name, tuple(literals.split()), re.compile(bounded))


def _opaque(name: str, literals: str, pattern: str) -> SecretKind:
    """A token of letters and digits alone, which a path or a picture in base64 could hold too."""
    bounded = rf"(?<![A-Za-z0-9_+/-]){pattern}(?![A-Za-z0-9_+/=-])"
    return SecretKind(name, tuple(literals.split()), re.compile(bounded))


def _within(name: str, literals: str, pattern: str) -> SecretKind:
    """A secret that its surroundings give away."""
    return SecretKind(name, tuple(literals.split()), re.compile(pattern))


KINDS: Final = (
    # Whole blocks first: what is in them is nothing else any more.
    _within(
        "private-key",
        "PRIVATE",
        r"-----BEGIN (?P<label>[A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?)-----"
        r"(?:(?:[^-]|-(?!----)){40,10000}-----END (?P=label)-----|[\sA-Za-z0-9+/=\\]{64,10000})",
    ),
    _within("putty-key", "Private-Lines", r"Private-Lines: \d+\s+(?P<secret>(?:[\w+/=]+\s*)+)"),
    _token("age-key", "AGE-SECRET-KEY-1", r"AGE-SECRET-KEY-1[A-Z0-9]{58}"),
    # Clouds and hosts
    _opaque(
        "aws-access-key",
        "AKIA ASIA ABIA ACCA A3T",
        r"(?:AKIA|ASIA|ABIA|ACCA|A3T[A-Z0-9])[A-Z0-9]{16}",
    ),
    _opaque("aws-bedrock-key", "ABSK", r"ABSK[A-Za-z0-9+/]{100,140}={0,2}"),
    _within(
        "azure-storage-key", "AccountKey=", r"AccountKey=(?P<secret>[A-Za-z0-9+/]{80,90}={0,2})"
    ),
    _within("azure-sas", "sig=", r"[?&]sig=(?P<secret>[A-Za-z0-9%+/]{40,80}(?:=|%3D){0,2})"),
    _token("azure-client-secret", "8Q~ 7Q~", r"[\w.~-]{3}[78]Q~[\w.~-]{31,34}"),
    _token("google-api-key", "AIza", r"AIza[\w-]{35}"),
    _token(
        "google-oauth",
        "GOCSPX- ya29. 1//0",
        r"(?:GOCSPX-[\w-]{28}|ya29\.[\w-]{20,400}|1//0[\w-]{40,200})",
    ),
    _opaque("alibaba-key", "LTAI", r"LTAI[A-Za-z0-9]{12,26}"),
    _opaque("tencent-key", "AKID", r"AKID[A-Za-z0-9]{32,36}"),
    _token("digitalocean", "dop_v1_ doo_v1_ dor_v1_", r"do[opr]_v1_[0-9a-f]{64}"),
    _token("heroku", "HRKU-", r"HRKU-[\w-]{36,64}"),
    _token("fly", "fo1_ fm1_ fm2_", r"(?:fo1_[\w-]{43}|fm[12]_[A-Za-z0-9+/=]{60,1000})"),
    _token("netlify", "nfp_", r"nfp_[A-Za-z0-9]{36,40}"),
    _token(
        "cloudflare",
        "v1.0- cfut_ cfat_ cfk_",
        r"(?:v1\.0-[0-9a-f]{24}-[0-9a-f]{146}|cf(?:ut|at|k)_[A-Za-z0-9]{40,60})",
    ),
    _token("supabase", "sbp_ sb_secret_", r"(?:sbp_[0-9a-f]{40}|sb_secret_[\w-]{20,60})"),
    _token("planetscale", "pscale_", r"pscale_(?:tkn|oauth|pw)_[\w.=-]{32,64}"),
    _token("neon", "napi_", r"napi_[a-z0-9]{60,70}"),
    _token("yandex-cloud", "AQVN", r"AQVN[\w-]{35,38}"),
    _token("tailscale", "tskey-", r"tskey-(?:auth|api|client|scim|webhook)-[\w-]{20,70}"),
    # Code, packages, builds
    _token(
        "github",
        "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_",
        r"(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_\w{60,120})",
    ),
    _token(
        "gitlab",
        "glpat- gldt- glrt- glcbt- glptt- glft- glimt- glagent- gloas- glsoat- glffct-",
        r"gl(?:pat|dt|rt|cbt|ptt|ft|imt|agent|oas|soat|ffct)-[\w.-]{20,300}",
    ),
    _token("bitbucket", "ATBB", r"ATBB[A-Za-z0-9]{32,40}"),
    _token("atlassian", "ATATT3 ATCTT3", r"AT[AC]TT3[\w=-]{100,300}"),
    _token("npm", "npm_", r"npm_[A-Za-z0-9]{36}"),
    _token("pypi", "pypi-Ag", r"pypi-Ag[\w-]{50,1000}"),
    _token("rubygems", "rubygems_", r"rubygems_[0-9a-f]{48}"),
    _opaque("crates", "cio", r"cio[A-Za-z0-9]{32}"),
    _opaque("nuget", "oy2", r"oy2[a-z0-9]{43}"),
    _token("clojars", "CLOJARS_", r"CLOJARS_[0-9a-z]{60}"),
    _opaque("artifactory", "AKCp cmVmd", r"(?:AKCp[A-Za-z0-9]{69}|cmVmd[A-Za-z0-9]{59})"),
    _token("docker", "dckr_", r"dckr_[po]at_[\w-]{27,64}"),
    _token("circleci", "CCIPAT_ CCIPRJ_", r"CCIP(?:AT|RJ)_[A-Za-z0-9]{20,24}_[0-9a-f]{40}"),
    _token("buildkite", "bkua_", r"bkua_[0-9a-z]{40}"),
    _token("sonar", "squ_ sqp_ sqa_", r"sq[upa]_[0-9a-f]{40}"),
    _token("pulumi", "pul-", r"pul-[0-9a-f]{40}"),
    _token("terraform", ".atlasv1.", r"[A-Za-z0-9]{14}\.atlasv1\.[\w-]{60,70}"),
    _token("vault", "hvs. hvb. hvr.", r"hv[sbr]\.[\w-]{24,300}"),
    _token("doppler", "dp.", r"dp\.(?:pt|st|ct|sa|scim|audit)\.[\w.-]{40,80}"),
    _token("infisical", "st.", r"st\.[0-9a-f]{24}\.[0-9a-f]{32}\.[0-9a-f]{32}"),
    _token("1password", "ops_eyJ", r"ops_eyJ[A-Za-z0-9+/=]{200,2000}"),
    _token("postman", "PMAK-", r"PMAK-[0-9a-f]{24}-[0-9a-f]{34}"),
    # Models
    _token("anthropic", "sk-ant-", r"sk-ant-[a-z]{3,6}\d\d-[\w-]{20,200}"),
    _token(
        "openai",
        "T3BlbkFJ sk-proj- sk-svcacct- sk-admin-",
        r"sk-(?:(?:proj|svcacct|admin)-[\w-]{20,250}|[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20})",
    ),
    _token("openrouter", "sk-or-", r"sk-or-(?:v\d-)?[0-9a-f]{64}"),
    _token("model-key", "sk-", r"sk-[A-Za-z0-9]{32,64}"),
    _token("huggingface", "hf_ api_org_", r"(?:hf|api_org)_[A-Za-z0-9]{34,40}"),
    _token("replicate", "r8_", r"r8_[A-Za-z0-9]{37,40}"),
    _token("groq", "gsk_", r"gsk_[A-Za-z0-9]{52}"),
    _token("xai", "xai-", r"xai-[A-Za-z0-9]{70,90}"),
    _token("perplexity", "pplx-", r"pplx-[A-Za-z0-9]{48,56}"),
    _token("tavily", "tvly-", r"tvly-(?:dev-|prod-)?[A-Za-z0-9-]{20,60}"),
    _token("pinecone", "pcsk_", r"pcsk_[A-Za-z0-9]{5,6}_[A-Za-z0-9]{50,70}"),
    _token("langsmith", "lsv2_", r"lsv2_(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{10}"),
    _token("elevenlabs", "sk_", r"sk_[0-9a-f]{48}"),
    # Money
    _token(
        "stripe",
        "sk_live_ sk_test_ rk_live_ rk_test_ whsec_",
        r"(?:[sr]k_(?:live|test)_[A-Za-z0-9]{16,250}|whsec_[A-Za-z0-9+/]{32,44}=?)",
    ),
    _token("square", "sq0atp- sq0csp- EAAA", r"(?:sq0(?:atp|csp)-[\w-]{22,43}|EAAA[\w-]{60})"),
    _token(
        "paypal-braintree",
        "access_token$",
        r"access_token\$(?:production|sandbox)\$[0-9a-z]{16}\$[0-9a-f]{32}",
    ),
    _token("plaid", "access-", rf"access-(?:sandbox|development|production)-{_UUID}"),
    _token("razorpay", "rzp_", r"rzp_(?:live|test)_[A-Za-z0-9]{14,24}"),
    _token("flutterwave", "FLWSECK", r"FLWSECK(?:_TEST)?-[0-9a-zA-Z]{12,34}(?:-X)?"),
    _token("shopify", "shpat_ shpca_ shppa_ shpss_", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"),
    _token("easypost", "EZAK EZTK", r"EZ[AT]K[A-Za-z0-9]{54}"),
    # Messages and mail
    _token(
        "slack",
        "xox xapp- xwfp-",
        r"(?=[a-z.-]*\d)(?:xox[abeoprsc](?:\.xox[a-z])?-[\w-]{10,250}|x(?:app|wfp)-[\w-]{30,200})",
    ),
    _within(
        "slack-webhook",
        "hooks.slack.com/",
        r"hooks\.slack\.com/(?:services|workflows|triggers)/(?P<secret>[\w/+-]{30,120})",
    ),
    _within(
        "discord-webhook", "/api/webhooks/", r"/api/webhooks/(?P<secret>\d{15,22}/[\w-]{60,80})"
    ),
    _token("discord", ".", r"[MNO][A-Za-z\d_-]{23,25}\.[\w-]{6}\.[\w-]{27,38}"),
    _within(
        "teams-webhook",
        "webhook.office.com/",
        r"webhook\.office\.com/webhookb2/(?P<secret>[\w@/-]{60,250})",
    ),
    _token("telegram", ":AA", r"\d{8,10}:AA[\w-]{32,34}"),
    _token("twilio", "SK", r"SK[0-9a-f]{32}"),
    _token("sendgrid", "SG.", r"SG\.[\w-]{16,32}\.[\w-]{16,64}"),
    _token("mailgun", "key-", r"key-[0-9a-f]{32}"),
    _token("mailchimp", "-us", r"[0-9a-f]{32}-us\d{1,2}"),
    _token("brevo", "xkeysib- xsmtpsib-", r"x(?:key|smtp)sib-[0-9a-f]{64}-[A-Za-z0-9]{16}"),
    _token("resend", "re_", r"re_[A-Za-z0-9]{8}_[A-Za-z0-9]{20,30}"),
    _token("dropbox", "sl.", r"sl\.(?:u\.|B)[\w-]{100,1400}"),
    # Work and watching
    _token("notion", "ntn_ secret_", r"(?:ntn_[A-Za-z0-9]{40,50}|secret_[A-Za-z0-9]{43})"),
    _token("linear", "lin_api_ lin_oauth_", r"lin_(?:api|oauth)_[A-Za-z0-9]{40,64}"),
    _token("figma", "figd_", r"figd_[\w-]{38,60}"),
    _token("airtable", "pat", r"pat[A-Za-z0-9]{14}\.[0-9a-f]{64}"),
    _token("databricks", "dapi", r"dapi[0-9a-f]{32}(?:-\d)?"),
    _token("new-relic", "NRAK- NRII-", r"NR(?:AK|II)-[A-Za-z0-9-]{27,36}"),
    _token(
        "grafana",
        "glsa_ glc_",
        r"(?:glsa_[A-Za-z0-9]{32}_[0-9a-f]{8}|glc_[A-Za-z0-9+/]{40,400}={0,2})",
    ),
    _token("sentry", "sntrys_ sntryu_", r"(?:sntryu_[0-9a-f]{64}|sntrys_[\w+/=-]{80,500})"),
    _token("dynatrace", "dt0", r"dt0[a-z]\d\d\.[A-Z0-9]{24}\.[A-Z0-9]{64}"),
    _token("launchdarkly", "sdk- api- mob-", rf"(?:sdk|api|mob)-{_UUID}"),
    _token("contentful", "CFPAT-", r"CFPAT-[\w-]{43}"),
    _token("mapbox", "sk.eyJ", r"sk\.eyJ[\w-]{40,200}\.[\w-]{20,40}"),
    _token("sourcegraph", "sgp_ sgd_", r"sg[pd]_(?:[A-Za-z0-9-]{1,20}_)?[0-9a-f]{40,64}"),
    _token("facebook", "EAACEdEose0cBA EAAG EAAC", r"EAA[CG][A-Za-z0-9]{90,300}"),
    _token("twitter", "AAAAAAAAAAAAAAAAAAAA", r"A{20,22}[A-Za-z0-9%]{60,140}"),
    _token("faiss-memory", "fm_", r"fm_[A-Za-z0-9]+_[\w-]{32,64}"),
    # Whatever their issuer
    _token("jwt", "eyJ", r"eyJ[\w-]{8,2000}\.eyJ[\w-]{8,8000}\.[\w-]{0,2000}"),
    _within(
        "authorization",
        "earer asic",
        r"(?i:\b(?:bearer|authorization:\s{0,4}basic)) {1,4}(?P<secret>[\w.~+/-]{16,2000}=*)",
    ),
    _within(
        "url-password",
        "://",
        r"[A-Za-z][A-Za-z0-9+.-]{1,30}://[^\s:/?#@\"'<>`]{0,100}:(?P<secret>[^\s/?#@\"'<>`]{1,200})@",
    ),
)
