// go_control_plane serves a folder of xDS resources with go-control-plane, the reference ADS implementation, in both
// variants (state of the world and delta). Every change of the folder is a new snapshot for every node.
//
// A file is JSON or YAML: one resource, a list, or several documents; each resource is an object with "@type".
// Standard output has a line an event: "port N" once it serves, "snapshot N of M resources", "rejected FILE: why",
// "request ...", "response ...", "nack ...", "opened ...", "closed ...".
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	clusterservice "github.com/envoyproxy/go-control-plane/envoy/service/cluster/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	endpointservice "github.com/envoyproxy/go-control-plane/envoy/service/endpoint/v3"
	listenerservice "github.com/envoyproxy/go-control-plane/envoy/service/listener/v3"
	routeservice "github.com/envoyproxy/go-control-plane/envoy/service/route/v3"
	secretservice "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
)

func main() {
	dir := flag.String("dir", "", "folder of resources (required)")
	port := flag.Int("port", 0, "loopback port, 0 for any")
	poll := flag.Duration("poll", 10*time.Millisecond, "how often to look at the folder")
	whole := flag.Bool("ads", false, "answer a state-of-the-world request only once it names all there is of its type")
	flag.Parse()
	if *dir == "" {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := serve(ctx, *dir, *port, *poll, *whole); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(ctx context.Context, dir string, port int, poll time.Duration, whole bool) error {
	snapshots := cache.NewSnapshotCache(whole, oneHash{}, nil)
	publisher := &publisher{dir: dir, cache: snapshots}
	publisher.refresh(ctx)

	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return err
	}
	grpcServer := grpc.NewServer(
		// Clients under test may ping as often as they like.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Millisecond, PermitWithoutStream: true}),
	)
	register(grpcServer, server.NewServer(ctx, snapshots, printEvents()))
	fmt.Printf("port %d\n", listener.Addr().(*net.TCPAddr).Port)

	go publisher.run(ctx, poll)
	go func() {
		<-ctx.Done()
		grpcServer.Stop()
	}()
	return grpcServer.Serve(listener)
}

func register(to *grpc.Server, from server.Server) {
	discovery.RegisterAggregatedDiscoveryServiceServer(to, from)
	listenerservice.RegisterListenerDiscoveryServiceServer(to, from)
	routeservice.RegisterRouteDiscoveryServiceServer(to, from)
	routeservice.RegisterScopedRoutesDiscoveryServiceServer(to, from)
	routeservice.RegisterVirtualHostDiscoveryServiceServer(to, from)
	clusterservice.RegisterClusterDiscoveryServiceServer(to, from)
	endpointservice.RegisterEndpointDiscoveryServiceServer(to, from)
	secretservice.RegisterSecretDiscoveryServiceServer(to, from)
}
