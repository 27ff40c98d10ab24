package main

import (
	"fmt"
	"maps"
	"reflect"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"istio.io/istio/pilot/pkg/model"
	"istio.io/istio/pilot/pkg/xds"
	"istio.io/istio/pkg/config"
)

// publisher carries each change of the folder into the store that the generator reads.
type publisher struct {
	dir    string
	store  model.ConfigStoreController
	server *xds.DiscoveryServer
	files  map[string]string
	served map[string]config.Config
}

func (p *publisher) run(poll time.Duration) {
	for range time.Tick(poll) {
		if err := p.refresh(); err != nil {
			fmt.Printf("rejected %s\n", strings.ReplaceAll(err.Error(), "\n", " "))
		}
	}
}

func (p *publisher) refresh() error {
	files, err := readFolder(p.dir)
	if err != nil || maps.Equal(files, p.files) {
		return err
	}
	p.files = files
	content, err := parseFiles(files)
	if err != nil {
		return err
	}
	if err := p.apply(byKey(content.configs)); err != nil {
		return err
	}
	p.settle()
	fmt.Printf("applied %d objects\n", len(content.configs))
	return nil
}

// settle waits until nodes that connect now are told of the change: until no update has come in for a while that is not
// in what is pushed.
func (p *publisher) settle() {
	for quiet := 0; quiet < 5; quiet++ {
		before := p.server.InboundUpdates.Load()
		time.Sleep(5 * time.Millisecond)
		if p.server.CommittedUpdates.Load() < p.server.InboundUpdates.Load() || before != p.server.InboundUpdates.Load() {
			quiet = -1
		}
	}
}

func (p *publisher) apply(wanted map[string]config.Config) error {
	for _, key := range sortedKeys(p.served) {
		if _, stays := wanted[key]; !stays {
			old := p.served[key]
			if err := p.store.Delete(old.GroupVersionKind, old.Name, old.Namespace, nil); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
			delete(p.served, key)
		}
	}
	for _, key := range sortedKeys(wanted) {
		if err := p.put(key, wanted[key]); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		p.served[key] = wanted[key]
	}
	return nil
}

func (p *publisher) put(key string, item config.Config) error {
	old, exists := p.served[key]
	if !exists {
		_, err := p.store.Create(item)
		return err
	}
	if same(old, item) {
		return nil
	}
	item.CreationTimestamp = p.store.Get(item.GroupVersionKind, item.Name, item.Namespace).CreationTimestamp
	_, err := p.store.Update(item)
	return err
}

func same(one, other config.Config) bool {
	first, ok := one.Spec.(proto.Message)
	second, okToo := other.Spec.(proto.Message)
	return ok && okToo && proto.Equal(first, second) && reflect.DeepEqual(one.Labels, other.Labels) &&
		reflect.DeepEqual(one.Annotations, other.Annotations)
}

func byKey(configs []config.Config) map[string]config.Config {
	found := map[string]config.Config{}
	for _, item := range configs {
		found[item.GroupVersionKind.Kind+" "+item.Namespace+"/"+item.Name] = item
	}
	return found
}
