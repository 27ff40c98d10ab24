package main

import (
	"context"
	"fmt"
	"sort"
	"strings"

	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/genproto/googleapis/rpc/status"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// printEvents says in a line each what the clients do, for tests to read.
func printEvents() server.Callbacks {
	return server.CallbackFuncs{
		StreamOpenFunc:        opened("sotw"),
		StreamClosedFunc:      closed("sotw"),
		DeltaStreamOpenFunc:   opened("delta"),
		DeltaStreamClosedFunc: closed("delta"),
		StreamRequestFunc: func(stream int64, r *discovery.DiscoveryRequest) error {
			fmt.Printf("request sotw stream=%d node=%s type=%s version=%s nonce=%s names=%s\n", stream,
				r.GetNode().GetId(), short(r.GetTypeUrl()), r.GetVersionInfo(), r.GetResponseNonce(), list(r.GetResourceNames()))
			nack(stream, r.GetTypeUrl(), r.GetErrorDetail())
			return nil
		},
		StreamDeltaRequestFunc: func(stream int64, r *discovery.DeltaDiscoveryRequest) error {
			initial := make([]string, 0, len(r.GetInitialResourceVersions()))
			for name := range r.GetInitialResourceVersions() {
				initial = append(initial, name)
			}
			fmt.Printf("request delta stream=%d node=%s type=%s nonce=%s subscribe=%s unsubscribe=%s initial=%s\n", stream,
				r.GetNode().GetId(), short(r.GetTypeUrl()), r.GetResponseNonce(), list(r.GetResourceNamesSubscribe()),
				list(r.GetResourceNamesUnsubscribe()), list(initial))
			nack(stream, r.GetTypeUrl(), r.GetErrorDetail())
			return nil
		},
		StreamResponseFunc: func(_ context.Context, stream int64, _ *discovery.DiscoveryRequest, r *discovery.DiscoveryResponse) {
			fmt.Printf("response sotw stream=%d type=%s version=%s nonce=%s resources=%d\n", stream,
				short(r.GetTypeUrl()), r.GetVersionInfo(), r.GetNonce(), len(r.GetResources()))
		},
		StreamDeltaResponseFunc: func(stream int64, _ *discovery.DeltaDiscoveryRequest, r *discovery.DeltaDiscoveryResponse) {
			fmt.Printf("response delta stream=%d type=%s nonce=%s resources=%d removed=%s\n", stream,
				short(r.GetTypeUrl()), r.GetNonce(), len(r.GetResources()), list(r.GetRemovedResources()))
		},
	}
}

func opened(variant string) func(context.Context, int64, string) error {
	return func(_ context.Context, stream int64, _ string) error {
		fmt.Printf("opened %s stream=%d\n", variant, stream)
		return nil
	}
}

func closed(variant string) func(int64, *core.Node) {
	return func(stream int64, _ *core.Node) {
		fmt.Printf("closed %s stream=%d\n", variant, stream)
	}
}

func nack(stream int64, typeURL string, detail *status.Status) {
	if detail != nil {
		fmt.Printf("nack stream=%d type=%s message=%q\n", stream, short(typeURL), detail.GetMessage())
	}
}

// short is the message name: Cluster, ClusterLoadAssignment, ...
func short(typeURL string) string {
	return typeURL[strings.LastIndexAny(typeURL, "./")+1:]
}

func list(names []string) string {
	sorted := append([]string{}, names...)
	sort.Strings(sorted)
	return "[" + strings.Join(sorted, ",") + "]"
}
