package kubeapi

import "reflect"

// mergeKeys says by which field the elements of a list are told apart in
// strategic and apply patches. Other lists are replaced whole.
var mergeKeys = map[string]string{
	"containers":      "name",
	"env":             "name",
	"ownerReferences": "uid",
	"ports":           "port",
	"volumes":         "name",
}

// merge puts a patch into an object: objects field by field, null deletes,
// everything else is replaced, except keyed lists when those are wanted.
func merge(object, patch Object, keyed bool) Object {
	if object == nil {
		object = Object{}
	}
	for name, value := range patch {
		switch value := value.(type) {
		case nil:
			delete(object, name)
		case Object:
			old, _ := object[name].(Object)
			object[name] = merge(old, value, keyed)
		case []any:
			old, _ := object[name].([]any)
			if by := mergeKeys[name]; keyed && by != "" {
				value = mergeList(old, value, by)
			}
			object[name] = value
		default:
			object[name] = value
		}
	}
	return object
}

func mergeList(old, patch []any, by string) []any {
	merged := append([]any(nil), old...)
next:
	for _, item := range patch {
		fields, isObject := item.(Object)
		if !isObject || fields[by] == nil {
			return patch
		}
		for i := range merged {
			if have, _ := merged[i].(Object); reflect.DeepEqual(have[by], fields[by]) {
				merged[i] = merge(have, fields, true)
				continue next
			}
		}
		merged = append(merged, item)
	}
	return merged
}

// prune drops from an object what was wished last and no longer is.
func prune(object, last, wish Object) {
	for name, was := range last {
		is, wished := wish[name]
		if !wished {
			delete(object, name)
			continue
		}
		was, isObject := was.(Object)
		if !isObject {
			continue
		}
		inner, _ := object[name].(Object)
		is2, _ := is.(Object)
		prune(inner, was, is2)
	}
}
