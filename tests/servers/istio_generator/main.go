// istio_generator serves a folder of Istio objects with Istio's own xDS generator (istiod's DiscoveryServer, fed from
// memory instead of a Kubernetes API), in plain text and in both variants (state of the world and delta).
//
// A file is YAML: Istio objects (networking.istio.io, security.istio.io, telemetry.istio.io), validated as istiod's
// webhook does, and Kubernetes objects (Service, Endpoints, Pod, ...). Every change of the Istio objects is pushed to
// the connected nodes; Kubernetes objects are read once, at the start.
//
// Standard output has a line an event: "port N" once it serves, "applied N objects", "rejected FILE: why". Istio's own
// log lines come between them, a NACK among them as "ADS:CDS: ACK ERROR ...".
package main

import (
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	meshconfig "istio.io/api/mesh/v1alpha1"
	"istio.io/istio/pilot/test/xds"
	"istio.io/istio/pkg/config/mesh"
)

func main() {
	dir := flag.String("dir", "", "folder of Istio and Kubernetes objects (required)")
	port := flag.Int("port", 0, "loopback port, 0 for any")
	meshFile := flag.String("mesh", "", "file with Istio's MeshConfig, for what differs from its defaults")
	poll := flag.Duration("poll", 10*time.Millisecond, "how often to look at the folder")
	flag.Parse()
	if *dir == "" {
		flag.Usage()
		os.Exit(2)
	}
	failer := &process{}
	serve(failer, *dir, *port, *meshFile, *poll)
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	<-stop
}

func serve(failer *process, dir string, port int, meshFile string, poll time.Duration) {
	files, err := readFolder(dir)
	failer.check(err)
	content, err := parseFiles(files)
	failer.check(err)
	meshConfig, err := readMeshConfig(meshFile)
	failer.check(err)

	server := xds.NewFakeDiscoveryServer(failer, xds.FakeOptions{
		Configs:           content.configs,
		KubernetesObjects: content.objects,
		MeshConfig:        meshConfig,
		// Edits that belong together are one push, as in a real istiod (which waits ten times as long).
		DebounceTime: 10 * time.Millisecond,
		ListenerBuilder: func() (net.Listener, error) {
			return net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		},
	})
	fmt.Printf("applied %d objects\n", len(content.configs))
	fmt.Printf("port %d\n", server.Listener.Addr().(*net.TCPAddr).Port)
	publisher := &publisher{
		dir:    dir,
		store:  server.Store(),
		server: server.Discovery,
		files:  files,
		served: byKey(content.configs),
	}
	go publisher.run(poll)
}

func readMeshConfig(file string) (*meshconfig.MeshConfig, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return mesh.ApplyMeshConfig(string(text), mesh.DefaultMeshConfig())
}
