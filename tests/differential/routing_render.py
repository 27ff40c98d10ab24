"""The model's route configurations in Envoy's JSON, for what the routing tests generate."""

from collections.abc import Sequence
from typing import Any

from meshlib.model.context_matchers import (
    AnyOf,
    AnyValue,
    DoubleMatch,
    FilterStateMatcher,
    ListHas,
    MetadataMatcher,
    TlsContextMatch,
    ValueMatcher,
)
from meshlib.model.headers import HeaderMutations
from meshlib.model.matcher_tree import AllOf, Matcher, MatcherList, Not, OneOf, OnMatch, Predicate, SinglePredicate
from meshlib.model.matchers import (
    CookieMatcher,
    FractionalPercent,
    HeaderMatcher,
    Int64Range,
    PathMatcher,
    Present,
    QueryParameterMatcher,
    RegexRewrite,
    RouteMatch,
    StringMatcher,
)
from meshlib.model.route import (
    ClusterHeader,
    DirectResponseAction,
    HashPolicy,
    HostRewrite,
    RedirectAction,
    Route,
    RouteAction,
    RouteConfiguration,
    VirtualHost,
    WeightedCluster,
    WeightedClusters,
)

Json = dict[str, Any]

_REDIRECT_CODES = {
    301: "MOVED_PERMANENTLY",
    302: "FOUND",
    303: "SEE_OTHER",
    307: "TEMPORARY_REDIRECT",
    308: "PERMANENT_REDIRECT",
}
_NOT_FOUND_CODES = {503: "SERVICE_UNAVAILABLE", 404: "NOT_FOUND", 500: "INTERNAL_SERVER_ERROR"}
_DENOMINATORS = {100: "HUNDRED", 10_000: "TEN_THOUSAND", 1_000_000: "MILLION"}


def route_configuration(config: RouteConfiguration) -> Json:
    return {
        "name": config.name,
        "virtual_hosts": [virtual_host(host) for host in config.virtual_hosts],
        **_mutations(config.request_headers, config.response_headers),
        "most_specific_header_mutations_wins": config.most_specific_header_mutations_wins,
        "ignore_port_in_host_matching": config.ignore_port_in_host_matching,
    }


def virtual_host(host: VirtualHost) -> Json:
    return {
        "name": host.name,
        "domains": list(host.domains),
        **({"matcher": _matcher(host.matcher, host)} if host.matcher else {"routes": [route(r) for r in host.routes]}),
        "require_tls": host.require_tls,
        **_mutations(host.request_headers, host.response_headers),
    }


def route(entry: Route) -> Json:
    return {
        "name": entry.name,
        "match": _match(entry.match),
        **_action(entry.action),
        **_mutations(entry.request_headers, entry.response_headers),
    }


def _matcher(matcher: Matcher[tuple[int, ...]], host: VirtualHost) -> Json:
    otherwise = {"on_no_match": _on_match(matcher.on_no_match, host)} if matcher.on_no_match else {}
    if isinstance(matcher, MatcherList):
        lines = [
            {"predicate": _predicate(line.predicate), "on_match": _on_match(line.on_match, host)}
            for line in matcher.lines
        ]
        return {**({"matcher_list": {"matchers": lines}} if lines else {}), **otherwise}
    entries = {key: _on_match(then, host) for key, then in matcher.entries}
    tree = {"input": _input(matcher.input.name), matcher.kind: {"map": entries}}
    return {"matcher_tree": tree, **otherwise}


def _on_match(on_match: OnMatch[tuple[int, ...]], host: VirtualHost) -> Json:
    if not isinstance(on_match.then, tuple):
        return {"matcher": _matcher(on_match.then, host)}
    routes = [route(host.routes[index]) for index in on_match.then]
    if len(routes) == 1:
        return {"action": _typed("envoy.config.route.v3.Route", **routes[0])}
    return {"action": _typed("envoy.config.route.v3.RouteList", routes=routes)}


def _predicate(predicate: Predicate) -> Json:
    match predicate:
        case SinglePredicate(input=source, match=match):
            value = _string(match)
            if match.kind == "safe_regex":
                value["safe_regex"]["google_re2"] = {}  # which xds.type.matcher.v3 requires
            return {"single_predicate": {"input": _input(source.name), "value_match": value}}
        case Not(predicate=inner):
            return {"not_matcher": _predicate(inner)}
        case OneOf(predicates=some):
            return {"or_matcher": {"predicate": [_predicate(each) for each in some]}}
        case AllOf(predicates=some):
            return {"and_matcher": {"predicate": [_predicate(each) for each in some]}}


def _input(header: str) -> Json:
    return _typed("envoy.type.matcher.v3.HttpRequestHeaderMatchInput", header_name=header)


def _typed(type_name: str, **fields: Any) -> Json:
    return {"name": type_name, "typed_config": {"@type": f"type.googleapis.com/{type_name}", **fields}}


def _match(match: RouteMatch) -> Json:
    return {
        **_path(match.path),
        "headers": [_header(header) for header in match.headers],
        "query_parameters": [_query_parameter(parameter) for parameter in match.query_parameters],
        **({"grpc": {}} if match.grpc else {}),
        **({"runtime_fraction": _fraction(match.runtime_fraction)} if match.runtime_fraction else {}),
        **({"cookies": [_cookie(cookie) for cookie in match.cookies]} if match.cookies else {}),
        **({"tls_context": _tls_context(match.tls_context)} if match.tls_context else {}),
        "dynamic_metadata": [_metadata(matcher) for matcher in match.dynamic_metadata],
        "filter_state": [_filter_state(matcher) for matcher in match.filter_state],
    }


def _cookie(cookie: CookieMatcher) -> Json:
    return {"name": cookie.name, "string_match": _string(cookie.match), "invert_match": cookie.invert}


def _tls_context(match: TlsContextMatch) -> Json:
    said = {"presented": match.presented, "validated": match.validated}
    return {name: value for name, value in said.items() if value is not None}


def _metadata(matcher: MetadataMatcher) -> Json:
    path = [{"key": key} for key in matcher.path]
    return {"filter": matcher.filter, "path": path, "value": _value(matcher.value), "invert": matcher.invert}


def _value(matcher: ValueMatcher) -> Json:
    match matcher:
        case None:
            return {"null_match": {}}
        case bool(flag):
            return {"bool_match": flag}
        case AnyValue(present=present):
            return {"present_match": present}
        case StringMatcher() as text:
            return {"string_match": _string(text)}
        case DoubleMatch(start=start, end=None):
            return {"double_match": {"exact": start}}
        case DoubleMatch(start=start, end=end):
            return {"double_match": {"range": {"start": start, "end": end}}}
        case ListHas(one_of=item):
            return {"list_match": {"one_of": _value(item)}}
        case AnyOf(matchers=some):
            return {"or_match": {"value_matchers": [_value(each) for each in some]}}


def _filter_state(matcher: FilterStateMatcher) -> Json:
    assert isinstance(matcher.match, StringMatcher)
    return {"key": matcher.key, "string_match": _string(matcher.match)}


def _path(path: PathMatcher) -> Json:
    if path.kind == "uri_template":
        config = "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"
        return {"path_match_policy": _typed(config, path_template=path.value)}
    value: Any = {"regex": path.value} if path.kind == "safe_regex" else path.value
    return {path.kind: value, "case_sensitive": path.case_sensitive}


def _fraction(percent: FractionalPercent) -> Json:
    default = {"numerator": percent.numerator, "denominator": _DENOMINATORS[percent.denominator]}
    return {"default_value": default, "runtime_key": percent.runtime_key}


def _header(header: HeaderMatcher) -> Json:
    match header.match:
        case Present(present=present):
            test: Json = {"present_match": present}
        case Int64Range(start=start, end=end):
            test = {"range_match": {"start": str(start), "end": str(end)}}
        case matcher:
            test = {"string_match": _string(matcher)}
    flags = {"invert_match": header.invert, "treat_missing_header_as_empty": header.treat_missing_as_empty}
    return {"name": header.name, **test, **flags}


def _string(matcher: StringMatcher) -> Json:
    value: Any = {"regex": matcher.value} if matcher.kind == "safe_regex" else matcher.value
    return {matcher.kind: value, "ignore_case": matcher.ignore_case}


def _query_parameter(parameter: QueryParameterMatcher) -> Json:
    if isinstance(parameter.match, Present):
        return {"name": parameter.name, "present_match": parameter.match.present}
    return {"name": parameter.name, "string_match": _string(parameter.match)}


def _action(action: object) -> Json:
    match action:
        case DirectResponseAction(status=status, body=body):
            return {"direct_response": {"status": status, "body": {"inline_string": body.decode()}}}
        case RedirectAction():
            return {"redirect": _redirect(action)}
        case RouteAction():
            return {"route": _route_action(action)}
        case _:
            raise TypeError(f"not rendered: {action!r}")


def _redirect(action: RedirectAction) -> Json:
    return _set_only(
        response_code=_REDIRECT_CODES[action.response_code],
        https_redirect=action.https_redirect,
        scheme_redirect=action.scheme_redirect,
        host_redirect=action.host_redirect,
        port_redirect=action.port_redirect,
        path_redirect=action.path_redirect,
        prefix_rewrite=action.prefix_rewrite,
        regex_rewrite=_regex_rewrite(action.regex_rewrite),
        strip_query=action.strip_query,
    )


def _route_action(action: RouteAction) -> Json:
    return {
        **_cluster(action.cluster),
        "timeout": f"{action.timeout or 0}s",
        "append_x_forwarded_host": action.append_x_forwarded_host,
        "cluster_not_found_response_code": _NOT_FOUND_CODES[action.cluster_not_found_response_code],
        **_set_only(
            prefix_rewrite=action.prefix_rewrite,
            path_rewrite=action.path_rewrite,
            regex_rewrite=_regex_rewrite(action.regex_rewrite),
            path_rewrite_policy=_template_rewrite(action.path_template_rewrite),
            hash_policy=[_hash_policy(policy) for policy in action.hash_policies],
        ),
        **_host_rewrite(action.host_rewrite),
    }


def _template_rewrite(rewrite: str) -> Json | None:
    config = "envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig"
    return _typed(config, path_template_rewrite=rewrite) if rewrite else None


def _cluster(cluster: str | WeightedClusters | ClusterHeader) -> Json:
    match cluster:
        case WeightedClusters(clusters=shares, header_name=header, use_hash_policy=hashed):
            key = _set_only(header_name=header, use_hash_policy=hashed)
            return {"weighted_clusters": {"clusters": [_share(share) for share in shares], **key}}
        case ClusterHeader(name=name):
            return {"cluster_header": name}
        case name:
            return {"cluster": name}


def _share(share: WeightedCluster) -> Json:
    return {
        **_set_only(name=share.name, cluster_header=share.cluster_header),
        "weight": share.weight,
        **_mutations(share.request_headers, share.response_headers),
        **_set_only(host_rewrite_literal=share.host_rewrite_literal),
    }


def _host_rewrite(rewrite: HostRewrite | None) -> Json:
    if rewrite is None:
        return {}
    match rewrite.kind:
        case "literal":
            return {"host_rewrite_literal": rewrite.value}
        case "header":
            return {"host_rewrite_header": rewrite.value}
        case "auto":
            return {"auto_host_rewrite": True}
        case "path_regex":
            return {"host_rewrite_path_regex": _regex_rewrite(rewrite.regex)}
        case "format":
            return {"host_rewrite": rewrite.value}


def _hash_policy(policy: HashPolicy) -> Json:
    match policy.kind:
        case "header":
            rewrite = _set_only(regex_rewrite=_regex_rewrite(policy.regex_rewrite))
            rule: Json = {"header": {"header_name": policy.name, **rewrite}}
        case "cookie":
            ttl = {} if policy.ttl is None else {"ttl": f"{policy.ttl}s"}
            rule = {"cookie": {"name": policy.name, "path": policy.path, **ttl}}
        case "query_parameter":
            rule = {"query_parameter": {"name": policy.name}}
        case "source_ip":
            rule = {"connection_properties": {"source_ip": True}}
        case "filter_state":
            rule = {"filter_state": {"key": policy.name}}
    return {**rule, "terminal": policy.terminal}


def _regex_rewrite(rewrite: RegexRewrite | None) -> Json | None:
    return rewrite and {"pattern": {"regex": rewrite.pattern}, "substitution": rewrite.substitution}


def _mutations(request: HeaderMutations, response: HeaderMutations) -> Json:
    return _set_only(
        request_headers_to_add=_additions(request),
        request_headers_to_remove=list(request.remove),
        response_headers_to_add=_additions(response),
        response_headers_to_remove=list(response.remove),
    )


def _additions(mutations: HeaderMutations) -> Sequence[Json]:
    return [
        {
            "header": {"key": option.name, "value": option.value},
            "append_action": option.append_action,
            "keep_empty_value": option.keep_empty_value,
        }
        for option in mutations.add
    ]


def _set_only(**fields: Any) -> Json:
    """The fields that say something: in a oneof even an empty value would be a choice."""
    return {name: value for name, value in fields.items() if value not in (None, "", False, [])}
