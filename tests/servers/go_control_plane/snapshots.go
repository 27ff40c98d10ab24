package main

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// everyNode gives all nodes the one snapshot.
const everyNode = "every node"

type oneHash struct{}

func (oneHash) ID(*core.Node) string { return everyNode }

// publisher keeps the cache at what the folder holds. A folder that does not parse leaves the last snapshot in place.
type publisher struct {
	dir    string
	cache  cache.SnapshotCache
	seen   map[string]string // files as last looked at, good or bad
	number int
}

// run looks at the folder until the context ends; polling sees every kind of change on every file system.
func (p *publisher) run(ctx context.Context, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			p.refresh(ctx)
		}
	}
}

// refresh publishes the folder if it has changed since the last look.
func (p *publisher) refresh(ctx context.Context) {
	files, err := readFolder(p.dir)
	if err != nil {
		fmt.Printf("rejected %v\n", err)
		return
	}
	if p.seen != nil && maps.Equal(files, p.seen) {
		return
	}
	p.seen = files
	resources, err := parseFiles(files)
	if err == nil {
		err = p.publish(ctx, resources)
	}
	if err != nil {
		fmt.Printf("rejected %v\n", err)
	}
}

// publish sets the snapshot. Each type has its own version, so that a change of one type pushes that type alone.
func (p *publisher) publish(ctx context.Context, resources byType) error {
	snapshot := &cache.Snapshot{}
	total := 0
	for index := range snapshot.Resources {
		typeURL, err := cache.GetResponseTypeURL(types.ResponseType(index))
		if err != nil {
			return err
		}
		version, err := digest(resources[typeURL])
		if err != nil {
			return err
		}
		snapshot.Resources[index] = cache.NewResources(version, resources[typeURL])
		total += len(resources[typeURL])
	}
	if err := p.cache.SetSnapshot(ctx, everyNode, snapshot); err != nil {
		return err
	}
	p.number++
	fmt.Printf("snapshot %d of %d resources\n", p.number, total)
	return nil
}
