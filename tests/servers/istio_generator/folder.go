package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"istio.io/istio/pilot/pkg/config/kube/crd"
	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/kube"
)

// objects is what a folder holds, apart for the two places it goes to.
type objects struct {
	configs []config.Config
	objects []runtime.Object
}

var documentEnd = regexp.MustCompile(`(?m)^---\s*$`)

// readFolder gives the content of each YAML file of dir, by file name. Dot files are someone's unfinished writing.
func readFolder(dir string) (map[string]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	files := map[string]string{}
	for _, entry := range entries {
		name := entry.Name()
		suffix := filepath.Ext(name)
		if strings.HasPrefix(name, ".") || (suffix != ".yaml" && suffix != ".yml") {
			continue
		}
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		files[name] = string(content)
	}
	return files, nil
}

// parseFiles turns every file into objects; one bad object refuses the whole folder.
func parseFiles(files map[string]string) (*objects, error) {
	found := &objects{}
	for _, name := range sortedKeys(files) {
		for _, document := range documentEnd.Split(files[name], -1) {
			if err := found.parse(document); err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	return found, nil
}

func (o *objects) parse(document string) error {
	kind := metav1.TypeMeta{}
	if err := yaml.Unmarshal([]byte(document), &kind); err != nil {
		return err
	}
	if kind == (metav1.TypeMeta{}) {
		return nil // an empty document
	}
	if group, _, _ := strings.Cut(kind.APIVersion, "/"); !strings.HasSuffix(group, "istio.io") {
		object, _, err := kube.IstioCodec.UniversalDeserializer().Decode([]byte(document), nil, nil)
		if err != nil {
			return err
		}
		o.objects = append(o.objects, object)
		return nil
	}
	configs, unknown, err := crd.ParseInputs(document)
	if err != nil {
		return err
	}
	if len(unknown) > 0 {
		return fmt.Errorf("%s is no kind that Istio knows", unknown[0].Kind)
	}
	for _, item := range configs {
		item.Domain = "cluster.local" // as istiod says of every object it reads; short names are completed with it
		if item.Namespace == "" {
			item.Namespace = "default"
		}
		o.configs = append(o.configs, item)
	}
	return nil
}

func sortedKeys[V any](values map[string]V) []string {
	names := make([]string, 0, len(values))
	for name := range values {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
