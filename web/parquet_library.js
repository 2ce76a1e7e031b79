// @ts-nocheck
// Written by build_libraries.mjs; do not edit.
/*
hyparquet 1.33.0, hyparquet-compressors 1.1.2, hyparquet-writer 0.17.0

The MIT License (MIT)

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation files (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.

fzstd 0.1.1

MIT License

Copyright (c) 2020 Arjun Barrett

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
*/
var library=(()=>{var Ot=Object.defineProperty;var ao=Object.getOwnPropertyDescriptor;var co=Object.getOwnPropertyNames;var lo=Object.prototype.hasOwnProperty;var uo=(e,t)=>{for(var n in t)Ot(e,n,{get:t[n],enumerable:!0})},po=(e,t,n,r)=>{if(t&&typeof t=="object"||typeof t=="func\
tion")for(let i of co(t))!lo.call(e,i)&&i!==n&&Ot(e,i,{get:()=>t[i],enumerable:!(r=ao(t,i))||r.enumerable});return e};var _o=e=>po(Ot({},"__esModule",{value:!0}),e);var Ps={};uo(Ps,{gunzip:()=>_n,parquetMetadataAsync:()=>Ae,parquetReadObjects:()=>an,parquetSchema:()=>G,parquetWriteBuffer:()=>Mn,
unzstd:()=>jr});var St=["BOOLEAN","INT32","INT64","INT96","FLOAT","DOUBLE","BYTE_ARRAY","FIXED_LEN_BYTE_ARRAY"],ie=["PLAIN","GROUP_VAR_I\
NT","PLAIN_DICTIONARY","RLE","BIT_PACKED","DELTA_BINARY_PACKED","DELTA_LENGTH_BYTE_ARRAY","DELTA_BYTE_ARRAY","RLE_DICTIO\
NARY","BYTE_STREAM_SPLIT","ALP"],Yn=["REQUIRED","OPTIONAL","REPEATED"],$n=["UTF8","MAP","MAP_KEY_VALUE","LIST","ENUM","D\
ECIMAL","DATE","TIME_MILLIS","TIME_MICROS","TIMESTAMP_MILLIS","TIMESTAMP_MICROS","UINT_8","UINT_16","UINT_32","UINT_64",
"INT_8","INT_16","INT_32","INT_64","JSON","BSON","INTERVAL"],qn=["UNCOMPRESSED","SNAPPY","GZIP","LZO","BROTLI","LZ4","ZS\
TD","LZ4_RAW"],tt=["DATA_PAGE","INDEX_PAGE","DICTIONARY_PAGE","DATA_PAGE_V2"],kn=["UNORDERED","ASCENDING","DESCENDING"],
Vn=["SPHERICAL","VINCENTY","THOMAS","ANDOYER","KARNEY"];function rt(e){let t=nt(e);if(t.type===1)return{type:"Point",coordinates:Mt(e,t)};if(t.type===2)return{type:"LineString",
coordinates:Pt(e,t)};if(t.type===3)return{type:"Polygon",coordinates:zn(e,t)};if(t.type===4){let n=[];for(let r=0;r<t.count;r++)
n.push(Mt(e,nt(e)));return{type:"MultiPoint",coordinates:n}}else if(t.type===5){let n=[];for(let r=0;r<t.count;r++)n.push(
Pt(e,nt(e)));return{type:"MultiLineString",coordinates:n}}else if(t.type===6){let n=[];for(let r=0;r<t.count;r++)n.push(
zn(e,nt(e)));return{type:"MultiPolygon",coordinates:n}}else if(t.type===7){let n=[];for(let r=0;r<t.count;r++)n.push(rt(
e));return{type:"GeometryCollection",geometries:n}}else throw new Error(`Unsupported geometry type: ${t.type}`)}function nt(e){
let{view:t}=e,n=t.getUint8(e.offset++)===1,r=t.getUint32(e.offset,n);e.offset+=4;let i=r%1e3,o=Math.floor(r/1e3),f=0;i>1&&
i<=7&&(f=t.getUint32(e.offset,n),e.offset+=4);let s=2;return o&&s++,o===3&&s++,{littleEndian:n,type:i,dim:s,count:f}}function Mt(e,t){
let n=[];for(let r=0;r<t.dim;r++){let i=e.view.getFloat64(e.offset,t.littleEndian);e.offset+=8,n.push(i)}return n}function Pt(e,t){
let n=[];for(let r=0;r<t.count;r++)n.push(Mt(e,t));return n}function zn(e,t){let{view:n}=e,r=[];for(let i=0;i<t.count;i++){
let o=n.getUint32(e.offset,t.littleEndian);e.offset+=4,r.push(Pt(e,{...t,count:o}))}return r}var Gn=new TextDecoder,oe={timestampFromMilliseconds(e){return new Date(Number(e))},timestampFromMicroseconds(e){return new Date(
Number(e/1000n))},timestampFromNanoseconds(e){return new Date(Number(e/1000000n))},dateFromDays(e){return new Date(e*864e5)},
stringFromBytes(e){return e&&Gn.decode(e)},jsonFromBytes(e){return e&&JSON.parse(Gn.decode(e))},geometryFromBytes(e){return e&&
rt({view:new DataView(e.buffer,e.byteOffset,e.byteLength),offset:0})},geographyFromBytes(e){return e&&rt({view:new DataView(
e.buffer,e.byteOffset,e.byteLength),offset:0})},uuidFromBytes(e){if(!e)return;let t=Array.from(e,n=>n.toString(16).padStart(
2,"0")).join("");return t.slice(0,8)+"-"+t.slice(8,12)+"-"+t.slice(12,16)+"-"+t.slice(16,20)+"-"+t.slice(20,32)}};function Dt(e,t,n,r){
if(t&&n.endsWith("_DICTIONARY")){let i=e;e instanceof Uint8Array&&!(t instanceof Uint8Array)&&(i=new t.constructor(e.length));
for(let o=0;o<e.length;o++)i[o]=t[e[o]];return i}else return Ct(e,r)}function Ct(e,t){let{element:n,parsers:r,utf8:i=!0,
schemaPath:o}=t,{type:f,converted_type:s,logical_type:a}=n,l=n.repetition_type!=="REQUIRED";if(f==="BYTE_ARRAY"&&n.name===
"inline"&&o?.at(-2)?.element.logical_type?.type==="FILE"||o?.some(c=>c.element.logical_type?.type==="VARIANT")&&f==="BYT\
E_ARRAY"&&s!=="UTF8"&&a?.type!=="STRING")return e;if(s==="DECIMAL"){let c=n.scale||0,d=10**c,_=new Array(e.length);for(let p=0;p<
_.length;p++)e[p]instanceof Uint8Array?_[p]=c>308?Fe(e[p])*10**-c:Fe(e[p])/d:_[p]=Number(e[p])/d;return _}if(!s&&f==="IN\
T96")return Array.from(e).map(c=>r.timestampFromNanoseconds(ho(c)));if(s==="DATE")return Array.from(e).map(c=>r.dateFromDays(
c));if(s==="TIMESTAMP_MILLIS")return Array.from(e).map(c=>r.timestampFromMilliseconds(c));if(s==="TIMESTAMP_MICROS")return Array.
from(e).map(c=>r.timestampFromMicroseconds(c));if(s==="JSON")return e.map(c=>r.jsonFromBytes(c));if(s==="BSON")throw new Error(
"parquet bson not supported");if(s==="INTERVAL")throw new Error("parquet interval not supported");if(a?.type==="GEOMETRY")
return e.map(c=>r.geometryFromBytes(c));if(a?.type==="GEOGRAPHY")return e.map(c=>r.geographyFromBytes(c));if(a?.type==="\
UUID")return e.map(c=>r.uuidFromBytes(c));if(s==="UTF8"||a?.type==="STRING"||i&&f==="BYTE_ARRAY")return e.map(c=>r.stringFromBytes(
c));if(s==="UINT_64"||a?.type==="INTEGER"&&a.bitWidth===64&&!a.isSigned){if(e instanceof BigInt64Array)return new BigUint64Array(
e.buffer,e.byteOffset,e.length);let c=l?new Array(e.length):new BigUint64Array(e.length);for(let d=0;d<c.length;d++)c[d]=
e[d];return c}if(s==="UINT_32"||a?.type==="INTEGER"&&a.bitWidth===32&&!a.isSigned){if(e instanceof Int32Array)return new Uint32Array(
e.buffer,e.byteOffset,e.length);let c=l?new Array(e.length):new Uint32Array(e.length);for(let d=0;d<c.length;d++)c[d]=e[d]<
0?4294967296+e[d]:e[d];return c}if(a?.type==="FLOAT16")return Array.from(e).map(Ft);if(a?.type==="TIMESTAMP"){let{unit:c}=a,
d=r.timestampFromMilliseconds;c==="MICROS"&&(d=r.timestampFromMicroseconds),c==="NANOS"&&(d=r.timestampFromNanoseconds);
let _=new Array(e.length);for(let p=0;p<_.length;p++)_[p]=d(e[p]);return _}return e}function Fe(e){if(!e.length)return 0;
let t=0n;for(let r of e)t=t*256n+BigInt(r);let n=e.length*8;return t>=2n**BigInt(n-1)&&(t-=2n**BigInt(n)),Number(t)}function ho(e){
let t=(e>>64n)-2440588n,n=e&0xffffffffffffffffn;return t*86400000000000n+n}function Ft(e){if(!e)return;let t=e[1]<<8|e[0],
n=t>>15?-1:1,r=t>>10&31,i=t&1023;return r===0?n*2**-14*(i/1024):r===31?i?NaN:n*(1/0):n*2**(r-15)*(1+i/1024)}function jn(e,t,n){let r=e[t],i=[],o=1;if(r.num_children)for(;i.length<r.num_children;){let f=e[t+o],s=jn(e,t+o,[...n,f.
name]);o+=s.count,i.push(s)}return{count:o,element:r,children:i,path:n}}function Kn(e,t){return vt(jn(e,0,[]),t)}function vt(e,t){
let n=[e];for(let r of t){let i=e.children.find(o=>o.element.name===r);if(!i)throw new Error(`parquet schema element not\
 found: ${t}`);n.push(i),e=i}return n}function it(e){let t=[];function n(r){if(r.children.length)for(let i of r.children)
n(i);else t.push(r.path.join("."))}return n(e),t}function Yt(e){let t=0;for(let{element:n}of e)n.repetition_type==="REPE\
ATED"&&t++;return t}function ve(e){let t=0;for(let{element:n}of e.slice(1))n.repetition_type!=="REQUIRED"&&t++;return t}
function Hn(e){if(!e||e.element.converted_type!=="LIST"||e.children.length>1)return!1;let t=e.children[0];return!(t.children.
length>1||t.element.repetition_type!=="REPEATED")}function Wn(e){if(!e||e.element.converted_type!=="MAP"||e.children.length>
1)return!1;let t=e.children[0];return!(t.children.length!==2||t.element.repetition_type!=="REPEATED"||t.children.find(i=>i.
element.name==="key")?.element.repetition_type==="REPEATED"||t.children.find(i=>i.element.name==="value")?.element.repetition_type===
"REPEATED")}function $t(e){if(e.length!==2)return!1;let[,t]=e;return!(t.element.repetition_type==="REPEATED"||t.children.
length)}function ne(e){let t={},n=0;for(;;){if(e.offset>=e.view.byteLength)throw new Error("thrift struct ended without STOP");let r=e.
view.getUint8(e.offset++),i=r&15;if(i===0)break;let o=r>>4;n=o?n+o:ot(e),t[`field_${n}`]=qt(e,i)}return t}function qt(e,t){
switch(t){case 1:return!0;case 2:return!1;case 3:return e.view.getInt8(e.offset++);case 4:case 5:return ot(e);case 6:return ft(
e);case 7:{let n=e.view.getFloat64(e.offset,!0);return e.offset+=8,n}case 8:{let n=j(e);if(e.offset+n>e.view.byteLength)
throw new Error(`thrift binary length ${n} exceeds remaining ${e.view.byteLength-e.offset} bytes`);let r=new Uint8Array(
e.view.buffer,e.view.byteOffset+e.offset,n);return e.offset+=n,r}case 9:{let n=e.view.getUint8(e.offset++),r=n&15,i=n>>4;
i===15&&(i=j(e));let o=r===1||r===2,f=new Array(i);for(let s=0;s<i;s++)f[s]=o?qt(e,3)===1:qt(e,r);return f}case 12:return ne(
e);default:throw new Error(`thrift unhandled type: ${t}`)}}function j(e){let t=0,n=0;for(;;){let r=e.view.getUint8(e.offset++);
if(t|=(r&127)<<n,!(r&128))return t;n+=7}}function mo(e){let t=0n,n=0n;for(;;){let r=e.view.getUint8(e.offset++);if(t|=BigInt(
r&127)<<n,!(r&128))return t;n+=7n}}function ot(e){let t=j(e);return t>>>1^-(t&1)}function ft(e){let t=mo(e);return t>>1n^
-(t&1n)}function Zn(e,t){let n=new Map,r=t?.find(({key:o})=>o==="geo")?.value,i=(r&&JSON.parse(r)?.columns)??{};for(let[o,f]of Object.
entries(i)){if(f.encoding!=="WKB")continue;let s=f.edges==="spherical"?"GEOGRAPHY":"GEOMETRY",a=f.crs?.id??f.crs?.ids?.[0],
l=a?`${a.authority}:${a.code.toString()}`:void 0;n.set(o,{type:s,crs:l})}for(let o=1;o<e.length;o++){let{logical_type:f,
name:s,num_children:a,type:l}=e[o];if(a){o+=a;continue}l==="BYTE_ARRAY"&&!f&&(e[o].logical_type=n.get(s))}}var yo=1<<19,go=new TextDecoder;function re(e){return e&&go.decode(e)}async function Ae(e,{parsers:t,initialFetchSize:n=yo,
geoparquet:r=!0}={}){if(!e||!(e.byteLength>=0))throw new Error("parquet expected AsyncBuffer");let i=Math.max(0,e.byteLength-
n),o=await e.slice(i,e.byteLength),f=new DataView(o);if(f.getUint32(o.byteLength-4,!0)!==827474256)throw new Error("parq\
uet file invalid (footer != PAR1)");let s=f.getUint32(o.byteLength-8,!0);if(s>e.byteLength-8)throw new Error(`parquet me\
tadata length ${s} exceeds available buffer ${e.byteLength-8}`);if(s+8>n){let a=e.byteLength-s-8,l=await e.slice(a,i),u=new ArrayBuffer(
s+8),c=new Uint8Array(u);return c.set(new Uint8Array(l)),c.set(new Uint8Array(o),i-a),kt(u,{parsers:t,geoparquet:r})}else
return kt(o,{parsers:t,geoparquet:r})}function kt(e,{parsers:t,geoparquet:n=!0}={}){let r;if(e instanceof ArrayBuffer)r=
new DataView(e);else if(e instanceof Uint8Array)r=new DataView(e.buffer,e.byteOffset,e.byteLength);else throw new Error(
"parquet expected ArrayBuffer or Uint8Array");let i={...oe,...t};if(r.byteLength<8)throw new Error("parquet file is too \
short");if(r.getUint32(r.byteLength-4,!0)!==827474256)throw new Error("parquet file invalid (footer != PAR1)");let o=r.byteLength-
8,f=r.getUint32(o,!0);if(f>r.byteLength-8)throw new Error(`parquet metadata length ${f} exceeds available buffer ${r.byteLength-
8}`);let s=o-f,l=ne({view:r,offset:s}),u=l.field_1,c=l.field_2.map(y=>({type:St[y.field_1],type_length:y.field_2,repetition_type:Yn[y.
field_3],name:re(y.field_4),num_children:y.field_5,converted_type:$n[y.field_6],scale:y.field_7,precision:y.field_8,field_id:y.
field_9,logical_type:Ao(y.field_10)})),d=c.filter(y=>y.type),_=l.field_3,p=l.field_4.map(y=>({columns:y.field_1.map((m,w)=>({
file_path:re(m.field_1),file_offset:m.field_2,meta_data:m.field_3&&{type:St[m.field_3.field_1],encodings:m.field_3.field_2?.
map(x=>ie[x]),path_in_schema:m.field_3.field_3.map(re),codec:qn[m.field_3.field_4],num_values:m.field_3.field_5,total_uncompressed_size:m.
field_3.field_6,total_compressed_size:m.field_3.field_7,key_value_metadata:m.field_3.field_8?.map(x=>({key:re(x.field_1),
value:re(x.field_2)})),data_page_offset:m.field_3.field_9,index_page_offset:m.field_3.field_10,dictionary_page_offset:m.
field_3.field_11,statistics:wo(m.field_3.field_12,d[w],i),encoding_stats:m.field_3.field_13?.map(x=>({page_type:tt[x.field_1],
encoding:ie[x.field_2],count:x.field_3})),bloom_filter_offset:m.field_3.field_14,bloom_filter_length:m.field_3.field_15,
size_statistics:m.field_3.field_16&&{unencoded_byte_array_data_bytes:m.field_3.field_16.field_1,repetition_level_histogram:m.
field_3.field_16.field_2,definition_level_histogram:m.field_3.field_16.field_3},geospatial_statistics:m.field_3.field_17&&
{bbox:m.field_3.field_17.field_1&&{xmin:m.field_3.field_17.field_1.field_1,xmax:m.field_3.field_17.field_1.field_2,ymin:m.
field_3.field_17.field_1.field_3,ymax:m.field_3.field_17.field_1.field_4,zmin:m.field_3.field_17.field_1.field_5,zmax:m.
field_3.field_17.field_1.field_6,mmin:m.field_3.field_17.field_1.field_7,mmax:m.field_3.field_17.field_1.field_8},geospatial_types:m.
field_3.field_17.field_2}},offset_index_offset:m.field_4,offset_index_length:m.field_5,column_index_offset:m.field_6,column_index_length:m.
field_7,crypto_metadata:m.field_8,encrypted_column_metadata:m.field_9})),total_byte_size:y.field_2,num_rows:y.field_3,sorting_columns:y.
field_4?.map(m=>({column_idx:m.field_1,descending:m.field_2,nulls_first:m.field_3})),file_offset:y.field_5,total_compressed_size:y.
field_6,ordinal:y.field_7})),h=l.field_5?.map(y=>({key:re(y.field_1),value:re(y.field_2)})),g=re(l.field_6);return n&&Zn(
c,h),{version:u,schema:c,num_rows:_,row_groups:p,key_value_metadata:h,created_by:g,metadata_length:f}}function G({schema:e}){
return Kn(e,[])[0]}function Ao(e){return e?.field_1?{type:"STRING"}:e?.field_2?{type:"MAP"}:e?.field_3?{type:"LIST"}:e?.
field_4?{type:"ENUM"}:e?.field_5?{type:"DECIMAL",scale:e.field_5.field_1,precision:e.field_5.field_2}:e?.field_6?{type:"\
DATE"}:e?.field_7?{type:"TIME",isAdjustedToUTC:e.field_7.field_1,unit:Xn(e.field_7.field_2)}:e?.field_8?{type:"TIMESTAMP",
isAdjustedToUTC:e.field_8.field_1,unit:Xn(e.field_8.field_2)}:e?.field_10?{type:"INTEGER",bitWidth:e.field_10.field_1,isSigned:e.
field_10.field_2}:e?.field_11?{type:"NULL"}:e?.field_12?{type:"JSON"}:e?.field_13?{type:"BSON"}:e?.field_14?{type:"UUID"}:
e?.field_15?{type:"FLOAT16"}:e?.field_16?{type:"VARIANT",specification_version:e.field_16.field_1}:e?.field_17?{type:"GE\
OMETRY",crs:re(e.field_17.field_1)}:e?.field_18?{type:"GEOGRAPHY",crs:re(e.field_18.field_1),algorithm:Vn[e.field_18.field_2]}:
e?.field_19?{type:"FILE"}:e}function Xn(e){if(e.field_1)return"MILLIS";if(e.field_2)return"MICROS";if(e.field_3)return"N\
ANOS";throw new Error("parquet time unit required")}function wo(e,t,n){return e&&{max:ge(e.field_1,t,n),min:ge(e.field_2,
t,n),null_count:e.field_3,distinct_count:e.field_4,max_value:ge(e.field_5,t,n),min_value:ge(e.field_6,t,n),is_max_value_exact:e.
field_7,is_min_value_exact:e.field_8}}function ge(e,t,n){let{type:r,converted_type:i,logical_type:o}=t;if(e===void 0)return e;
if(r==="BOOLEAN")return e[0]===1;if(r==="BYTE_ARRAY")return n.stringFromBytes(e);let f=new DataView(e.buffer,e.byteOffset,
e.byteLength);if(r==="FLOAT"&&f.byteLength===4)return f.getFloat32(0,!0);if(r==="DOUBLE"&&f.byteLength===8)return f.getFloat64(
0,!0);if(r==="INT32"&&i==="DECIMAL"&&f.byteLength===4)return f.getInt32(0,!0)/10**(t.scale||0);if(r==="INT64"&&i==="DECI\
MAL"&&f.byteLength===8)return Number(f.getBigInt64(0,!0))/10**(t.scale||0);if(r==="INT32"&&i==="DATE")return n.dateFromDays(
f.getInt32(0,!0));if(r==="INT64"&&i==="TIMESTAMP_MILLIS")return n.timestampFromMilliseconds(f.getBigInt64(0,!0));if(r===
"INT64"&&i==="TIMESTAMP_MICROS")return n.timestampFromMicroseconds(f.getBigInt64(0,!0));if(r==="INT64"&&o?.type==="TIMES\
TAMP"&&o?.unit==="NANOS")return n.timestampFromNanoseconds(f.getBigInt64(0,!0));if(r==="INT64"&&o?.type==="TIMESTAMP"&&o?.
unit==="MICROS")return n.timestampFromMicroseconds(f.getBigInt64(0,!0));if(r==="INT64"&&o?.type==="TIMESTAMP")return n.timestampFromMilliseconds(
f.getBigInt64(0,!0));let s=i?.startsWith("UINT_")||o?.type==="INTEGER"&&!o.isSigned;if(r==="INT32"&&s&&f.byteLength===4)
return f.getUint32(0,!0);if(r==="INT64"&&s&&f.byteLength===8)return f.getBigUint64(0,!0);if(r==="INT32"&&f.byteLength===
4)return f.getInt32(0,!0);if(r==="INT64"&&f.byteLength===8)return f.getBigInt64(0,!0);if(i==="DECIMAL"){let a=t.scale||0;
return a>308?Fe(e)*10**-a:Fe(e)/10**a}return o?.type==="FLOAT16"?Ft(e):o?.type==="UUID"?n.uuidFromBytes(e):e}function Jn(e,t,n=void 0){let r={...oe,...n},i=ne(e);return{null_pages:i.field_1,min_values:i.field_2.map(o=>ge(o,t,r)),
max_values:i.field_3.map(o=>ge(o,t,r)),boundary_order:kn[i.field_4],null_counts:i.field_5,repetition_level_histograms:i.
field_6,definition_level_histograms:i.field_7}}function Ye(e){let t=ne(e);return{page_locations:t.field_1.map(n=>({offset:n.
field_1,compressed_page_size:n.field_2,first_row_index:n.field_3})),unencoded_byte_array_data_bytes:t.field_2}}var Y=0xffffffffffffffffn,we=0x9e3779b185ebca87n,$e=0xc2b2ae3d27d4eb4fn,Qn=0x165667b19e3779f9n,tr=0x85ebca77c2b2ae63n,er=0x27d4eb2f165667c5n;
function pe(e,t){return(e<<t|e>>64n-t)&Y}function Re(e,t){return e=e+t*$e&Y,e=pe(e,31n),e*we&Y}function st(e,t){return e^=
Re(0n,t),e*we+tr&Y}function fe(e,t=0n){let n=new DataView(e.buffer,e.byteOffset,e.byteLength),r=e.byteLength,i=0,o;if(r>=
32){let f=t+we+$e&Y,s=t+$e&Y,a=t,l=t-we&Y;for(;i+32<=r;)f=Re(f,n.getBigUint64(i,!0)),i+=8,s=Re(s,n.getBigUint64(i,!0)),i+=
8,a=Re(a,n.getBigUint64(i,!0)),i+=8,l=Re(l,n.getBigUint64(i,!0)),i+=8;o=pe(f,1n)+pe(s,7n)+pe(a,12n)+pe(l,18n)&Y,o=st(o,f),
o=st(o,s),o=st(o,a),o=st(o,l)}else o=t+er&Y;for(o=o+BigInt(r)&Y;i+8<=r;)o^=Re(0n,n.getBigUint64(i,!0)),o=pe(o,27n)*we+tr&
Y,i+=8;for(i+4<=r&&(o^=BigInt(n.getUint32(i,!0))*we&Y,o=pe(o,23n)*$e+Qn&Y,i+=4);i<r;)o^=BigInt(n.getUint8(i))*er&Y,o=pe(
o,11n)*we&Y,i+=1;return o^=o>>33n,o=o*$e&Y,o^=o>>29n,o=o*Qn&Y,o^=o>>32n,o}var Eo=new TextEncoder,Io=new Uint32Array([1203114875,1150766481,2284105051,2729912477,1884591559,770785867,2667333959,1550580529]);
function xo(e,t){return Number((e>>32n)*BigInt(t)>>32n)}function To(e){let t=new Uint32Array(8),n=Number(e&0xffffffffn)|
0;for(let r=0;r<8;r++)t[r]=1<<(Math.imul(n,Io[r])>>>27);return t}function zt(e,t){let n=xo(t,e.length>>3)<<3,r=To(t);for(let i=0;i<8;i++)if((e[n+i]&r[i])===0)return!1;return!0}function nr(e){
let t=ne(e),n=t.field_1;if(typeof n!="number"||n<=0||n%32!==0||!t.field_2?.field_1||!t.field_3?.field_1||!t.field_4?.field_1)
return;let{view:r,offset:i}=e;if(i+n>r.byteLength)throw new Error(`parquet bloom filter truncated: need ${n} bytes, have\
 ${r.byteLength-i}`);let o=new Uint32Array(n>>2);for(let f=0;f<o.length;f++)o[f]=r.getUint32(i+f*4,!0);return e.offset=i+
n,{numBytes:n,blocks:o}}function Gt(e,t){if(e==null)return;let{type:n,converted_type:r,logical_type:i}=t;if(n==="BOOLEAN")
return typeof e!="boolean"?void 0:fe(new Uint8Array([e?1:0]));if(n==="FLOAT"){if(typeof e!="number")return;let o=new ArrayBuffer(
4);return new DataView(o).setFloat32(0,e,!0),fe(new Uint8Array(o))}if(n==="DOUBLE"){if(typeof e!="number")return;let o=new ArrayBuffer(
8);return new DataView(o).setFloat64(0,e,!0),fe(new Uint8Array(o))}if(n==="INT32"){if(r==="DATE"||r==="DECIMAL"||r==="TI\
ME_MILLIS"||i?.type==="DATE"||i?.type==="TIME"||i?.type==="DECIMAL"||typeof e!="number"||!Number.isInteger(e))return;let o=new ArrayBuffer(
4);return new DataView(o).setInt32(0,e|0,!0),fe(new Uint8Array(o))}if(n==="INT64"){if(r==="TIMESTAMP_MILLIS"||r==="TIMES\
TAMP_MICROS"||r==="TIME_MICROS"||r==="DECIMAL"||i?.type==="TIMESTAMP"||i?.type==="TIME"||i?.type==="DECIMAL")return;let o;
if(typeof e=="bigint")o=e;else if(typeof e=="number"&&Number.isSafeInteger(e))o=BigInt(e);else return;let f=new ArrayBuffer(
8);return new DataView(f).setBigUint64(0,BigInt.asUintN(64,o),!0),fe(new Uint8Array(f))}if(n==="BYTE_ARRAY")return r==="\
JSON"||r==="BSON"||r==="DECIMAL"||i?.type==="JSON"||i?.type==="BSON"||i?.type==="VARIANT"||i?.type==="GEOMETRY"||i?.type===
"GEOGRAPHY"?void 0:typeof e=="string"?fe(Eo.encode(e)):e instanceof Uint8Array?fe(e):void 0;if(n==="FIXED_LEN_BYTE_ARRAY")
return r==="DECIMAL"||r==="INTERVAL"||i?.type==="DECIMAL"||i?.type==="UUID"||i?.type==="FLOAT16"||i?.type==="GEOMETRY"||
i?.type==="GEOGRAPHY"?void 0:e instanceof Uint8Array?fe(e):void 0}function rr(e){let t=new Set;return Vt(e,t),t}function Vt(e,t){
if(e){if("$and"in e&&Array.isArray(e.$and)){for(let n of e.$and)Vt(n,t);return}if("$or"in e&&Array.isArray(e.$or)){for(let n of e.
$or)Vt(n,t);return}if(!("$nor"in e))for(let[n,r]of Object.entries(e))n.startsWith("$")||(typeof r=="object"&&r!==null&&!Array.
isArray(r)?("$eq"in r||"$in"in r)&&t.add(n):t.add(n))}}function jt(e,t){for(let r=0;r<t.length;r+=1e4)e.push(...t.slice(r,r+1e4))}function K(e,t,n=!0){if(n?e===t:e==t)return!0;
if(!e||!t||typeof e!="object"||typeof t!="object")return!1;if(e instanceof Uint8Array&&t instanceof Uint8Array){if(e.length!==
t.length)return!1;for(let i=0;i<e.length;i++)if(e[i]!==t[i])return!1;return!0}if(e instanceof Date||t instanceof Date)return e instanceof
Date&&t instanceof Date&&e.getTime()===t.getTime();if(Array.isArray(e)&&Array.isArray(t)){if(e.length!==t.length)return!1;
for(let i=0;i<e.length;i++)if(!K(e[i],t[i],n))return!1;return!0}let r=Object.keys(e);if(r.length!==Object.keys(t).length)
return!1;for(let i of r)if(!K(e[i],t[i],n))return!1;return!0}function Kt(e){if(!e)return[];if(e.length===1)return e[0];let t=[];for(let n of e)jt(t,n);return t}var ir=new TextEncoder;function Ue(e){if(!e)return[];let t=[];return"$and"in e&&Array.isArray(e.$and)?t.push(...e.$and.flatMap(
Ue)):"$or"in e&&Array.isArray(e.$or)?t.push(...e.$or.flatMap(Ue)):"$nor"in e&&Array.isArray(e.$nor)?t.push(...e.$nor.flatMap(
Ue)):t.push(...Object.keys(e)),[...new Set(t)]}function ct(e){return[...new Set(Ue(e).map(t=>t.split(".")[0]))]}function _e(e,t,n=!0){
return"$and"in t&&Array.isArray(t.$and)?t.$and.every(r=>_e(e,r,n)):"$or"in t&&Array.isArray(t.$or)?t.$or.some(r=>_e(e,r,
n)):"$nor"in t&&Array.isArray(t.$nor)?!t.$nor.some(r=>_e(e,r,n)):Object.entries(t).every(([r,i])=>{let o=Lo(e,r);return typeof i!=
"object"||i===null||Array.isArray(i)?K(o,i,n):Object.entries(i||{}).every(([f,s])=>f==="$gt"?o!=null&&o>s:f==="$gte"?o!=
null&&o>=s:f==="$lt"?o!=null&&o<s:f==="$lte"?o!=null&&o<=s:f==="$eq"?K(o,s,n):f==="$ne"?!K(o,s,n):f==="$in"?Array.isArray(
s)&&or(o,s,n):f==="$nin"?Array.isArray(s)&&!or(o,s,n):f==="$not"?!_e({value:o},{value:s},n):!0)})}function or(e,t,n){return t.
some(r=>K(e,r,n)||Array.isArray(e)&&e.some(i=>K(i,r,n)))}function Oe({rowGroup:e,physicalColumns:t,filter:n,strict:r=!0,
bloomFilters:i,schemaElements:o}){if(!n)return!1;if("$and"in n&&Array.isArray(n.$and))return n.$and.some(f=>Oe({rowGroup:e,
physicalColumns:t,filter:f,strict:r,bloomFilters:i,schemaElements:o}));if("$or"in n&&Array.isArray(n.$or))return n.$or.every(
f=>Oe({rowGroup:e,physicalColumns:t,filter:f,strict:r,bloomFilters:i,schemaElements:o}));if("$nor"in n&&Array.isArray(n.
$nor))return!1;for(let[f,s]of Object.entries(n)){let a=t.indexOf(f);if(a===-1)continue;let l=e.columns[a].meta_data?.statistics,
{min:u,max:c,min_value:d,max_value:_,null_count:p}=l||{},h=d!==void 0?d:u,g=_!==void 0?_:c,y=h!==void 0&&g!==void 0,m=i?.[f],
w=o?.[f],x=_e({value:null},{value:s},r)&&(p===void 0||p>0);if(y&&!x&&ar(s,h,g,r,w))return!0;for(let[E,A]of Object.entries(
s||{}))if(m&&w){if(E==="$eq"){let I=Gt(A,w);if(I!==void 0&&!zt(m.blocks,I))return!0}if(E==="$in"&&Array.isArray(A)&&A.length>
0){let I=!0;for(let b of A){let L=Gt(b,w);if(L===void 0||zt(m.blocks,L)){I=!1;break}}if(I)return!0}}}return!1}function ar(e,t,n,r,i){
if(t===void 0||n===void 0)return!1;let o=i?.type==="FLOAT"||i?.type==="DOUBLE"||i?.logical_type?.type==="FLOAT16";for(let[
f,s]of Object.entries(e||{})){let a=Ne(t,s,r,i),l=Ne(n,s,r,i),c=!(t instanceof Uint8Array||n instanceof Uint8Array)&&(i?.
type!=="BYTE_ARRAY"||typeof s=="string"&&[...s].every(d=>d.charCodeAt(0)<=127));if(f==="$gt"&&c&&l!==void 0&&l<=0||f==="\
$gte"&&c&&l!==void 0&&l<0||f==="$lt"&&c&&a!==void 0&&a>=0||f==="$lte"&&c&&a!==void 0&&a>0)return!0;if(f==="$eq"){let d=Ne(
s,t,r,i),_=Ne(s,n,r,i);if(d!==void 0&&d<0||_!==void 0&&_>0)return!0}if(f==="$ne"&&!o&&K(t,n,r)&&K(t,s,r)||f==="$in"&&Array.
isArray(s)&&s.every(d=>{let _=Ne(d,t,r,i),p=Ne(d,n,r,i);return _!==void 0&&_<0||p!==void 0&&p>0})||f==="$nin"&&!o&&Array.
isArray(s)&&K(t,n,r)&&s.some(d=>K(t,d,r)))return!0}return!1}function Ne(e,t,n,r){if(r?.type==="BYTE_ARRAY")return typeof e!=
"string"||typeof t!="string"?void 0:fr(ir.encode(e),ir.encode(t));if(e instanceof Uint8Array||t instanceof Uint8Array)return!(e instanceof
Uint8Array)||!(t instanceof Uint8Array)?void 0:fr(e,t);if(e<t)return-1;if(e>t)return 1;if(K(e,t,n))return 0}function fr(e,t){
let n=Math.min(e.length,t.length);for(let r=0;r<n;r++){if(e[r]<t[r])return-1;if(e[r]>t[r])return 1}return e.length<t.length?
-1:e.length>t.length?1:0}function bo(e,t){return _e({value:null},{value:e},t)}function at(e,t,n,r=!0){if(!e)return;if("$\
and"in e&&Array.isArray(e.$and)){let o;for(let f of e.$and)o=sr(o,at(f,t,n,r));return o}if("$or"in e&&Array.isArray(e.$or)){
let o=[];for(let f of e.$or){let s=at(f,t,n,r);if(!s)return;o=Bo(o,s)}return o}if("$nor"in e&&Array.isArray(e.$nor))return;
let i;for(let[o,f]of Object.entries(e)){let s=t[o];if(!s)continue;let a=bo(f,r),l=[];for(let u=0;u<s.pageStarts.length;u++){
let c=s.pageStarts[u],d=u+1<s.pageStarts.length?s.pageStarts[u+1]:n,_=s.nullCounts?.[u],p=a&&(_===void 0||_>0);if(!(!s.nullPages[u]&&
!p&&ar(f,s.minValues[u],s.maxValues[u],r,s.element))){let g=l[l.length-1];g&&g[1]===c?g[1]=d:l.push([c,d])}}i=sr(i,l)}return i}
function sr(e,t){if(!e)return t;if(!t)return e;let n=[],r=0,i=0;for(;r<e.length&&i<t.length;){let o=Math.max(e[r][0],t[i][0]),
f=Math.min(e[r][1],t[i][1]);o<f&&n.push([o,f]),e[r][1]<t[i][1]?r++:i++}return n}function Bo(e,t){let n=[],r=0,i=0;for(;r<
e.length||i<t.length;){let o=i>=t.length||r<e.length&&e[r][0]<=t[i][0]?e[r++]:t[i++],f=n[n.length-1];f&&o[0]<=f[1]?f[1]=
Math.max(f[1],o[1]):n.push([o[0],o[1]])}return n}function Lo(e,t){let n=e;for(let r of t.split("."))n=n?.[r];return n}var cr=1<<21,Ro=8192;function ur(e){let{metadata:t,rowStart:n=0,columns:r,useOffsetIndex:i=!1}=e;if(!t)throw new Error("\
parquetPlan requires metadata");let o=[],f=[],s=[],a=dr(e);for(let l of a.groups){let u=pr({...l,columns:r,useOffsetIndex:i});
o.push(...u.groups),f.push(...u.fetches),s.push(...u.indexes)}return f.push(...s),{metadata:t,rowStart:n,rowEnd:a.rowEnd,
columns:r,fetches:f,groups:o}}function dr({metadata:e,rowStart:t=0,rowEnd:n=1/0,columns:r,filter:i,filterStrict:o=!0,bloomFiltersByGroup:f,
schemaElements:s,pageRangesByGroup:a,pageLocationsByGroup:l}){if(!e)throw new Error("parquetPlan requires metadata");let u=G(
e),c=it(u),d=i?{...yr(u),...s}:s,_=[],p=0;for(let h=0;h<e.row_groups.length;h++){let g=e.row_groups[h],y=Number(g.num_rows),
m=p+y;if(y>0&&m>t&&p<n&&!Oe({rowGroup:g,physicalColumns:c,filter:i,strict:o,bloomFilters:f?.[h],schemaElements:d})){let w=Math.
max(t-p,0),x=Math.min(n-p,y),E=a?.[h],A=l?.[h],I=E?E.map(([b,L])=>[Math.max(b,w),Math.min(L,x)]).filter(([b,L])=>b<L):[[
w,x]];I.length>1&&(I=g.columns.every(L=>{let N=L.meta_data?.path_in_schema[0],U=L.meta_data?.path_in_schema.join(".");return r&&
N&&!r.includes(N)?!0:!!(L.offset_index_offset&&L.offset_index_length)||!!(U&&A?.[U])})?No(I,g,r,A):[[I[0][0],I[I.length-
1][1]]]),I.length&&_.push({rowGroup:g,groupIndex:h,groupStart:p,groupRows:y,ranges:I,pageRanges:E,pageLocations:A})}p=m}
return{groups:_,rowEnd:isFinite(n)?n:p}}function pr({rowGroup:e,groupStart:t,groupRows:n,ranges:r,columns:i,useOffsetIndex:o=!1,
pageRanges:f,pageLocations:s}){let a=[],l=[],u=[],c=r.length>1||r[0][0]>0||r[0][1]<n;for(let h of e.columns){let g=h.meta_data;
if(h.file_path)throw new Error("parquet file_path not supported");if(!g)throw new Error("parquet column metadata is unde\
fined");if(i&&!i.includes(g.path_in_schema[0]))continue;let y=g.dictionary_page_offset||g.data_page_offset,m=Number(y),w=Number(
y+g.total_compressed_size),x=s?.[g.path_in_schema.join(".")];if(x&&c)a.push({columnMetadata:g,pageLocations:x,range:{startByte:m,
endByte:w}});else if((o||f)&&h.offset_index_offset&&h.offset_index_length&&c){let E=Number(h.offset_index_offset);a.push(
{columnMetadata:g,offsetIndex:{startByte:E,endByte:E+h.offset_index_length},range:{startByte:Number(y),endByte:w}})}else
a.push({columnMetadata:g,range:{startByte:m,endByte:w}})}let d=[],_;for(let h of a)"pageLocations"in h||("offsetIndex"in
h?u.push(h.offsetIndex):i?d.push(h.range):_&&h.range.endByte-_.startByte<=cr?_.endByte=h.range.endByte:(_&&l.push(_),_={
...h.range}));return _&&l.push(_),l.push(...mr(d,Ro,cr)),{groups:r.map(([h,g])=>({chunks:a,rowGroup:e,groupStart:t,groupRows:n,
selectStart:h,selectEnd:g})),fetches:l,indexes:u}}function No(e,t,n,r){let i=t.columns.filter(f=>!n||n.includes(f.meta_data?.
path_in_schema[0]||"")).map(f=>r?.[f.meta_data?.path_in_schema.join(".")||""]),o=[];for(let f of e){let s=o[o.length-1],
a=s&&i.some(l=>{if(!l)return!0;let u=lr(s,l,Number(t.num_rows)),c=lr(f,l,Number(t.num_rows));return u[0]<=c[1]&&c[0]<=u[1]});
s&&a?s[1]=f[1]:o.push([...f])}return o}function lr([e,t],n,r){let i=1/0,o=-1/0;for(let f=0;f<n.length;f++){let s=Number(
n[f].first_row_index);(f+1<n.length?Number(n[f+1].first_row_index):r)>e&&s<t&&(i=Math.min(i,f),o=f)}return[i,o]}async function _r({
file:e,metadata:t,filter:n,filterStrict:r=!0}){let i=t.row_groups.map(()=>({})),o=rr(n);if(o.size===0)return i;let f=it(
G(t)),s=[];return t.row_groups.forEach((a,l)=>{if(!Oe({rowGroup:a,physicalColumns:f,filter:n,strict:r}))for(let u of o){
let c=f.indexOf(u);if(c===-1)continue;let d=a.columns[c]?.meta_data;if(!d?.bloom_filter_offset||!d.bloom_filter_length)continue;
let _=Number(d.bloom_filter_offset),p=_+d.bloom_filter_length;s.push((async()=>{let h=await e.slice(_,p),g=nr({view:new DataView(
h),offset:0});g&&(i[l][u]=g)})())}}),s.length&&await Promise.all(s),i}async function hr({file:e,metadata:t,filter:n,filterStrict:r=!0,
rowStart:i=0,rowEnd:o=1/0,columns:f,bloomFiltersByGroup:s,schemaElements:a,parsers:l}){let u=t.row_groups.map(()=>{}),c=t.
row_groups.map(()=>({}));if(n&&"$nor"in n&&Array.isArray(n.$nor))return{pageRangesByGroup:u,pageLocationsByGroup:c};let d=Ue(
n);if(!d.length)return{pageRangesByGroup:u,pageLocationsByGroup:c};let _=G(t),p=it(_),h={...yr(_),...a},g=[],y=[],m=[],w=0;
if(t.row_groups.forEach((x,E)=>{let A=Number(x.num_rows),I=w+A,b=A>0&&I>i&&w<o;if(w=I,!b||Oe({rowGroup:x,physicalColumns:p,
filter:n,strict:r,bloomFilters:s?.[E],schemaElements:h}))return;let L={},N=0,U=new Set,O=!1;for(let R of d){let B=p.indexOf(
R);if(B===-1)continue;let T=x.columns[B];if(!T?.meta_data||!T.column_index_offset||!T.column_index_length||!T.offset_index_offset||
!T.offset_index_length)continue;let S=h[R];if(!S)continue;O=!0,U.add(R);let v=Number(T.column_index_offset),V=Number(T.offset_index_offset),
k=v+T.column_index_length,z=V+T.offset_index_length;g.push({startByte:v,endByte:k},{startByte:V,endByte:z}),N++,y.push(async Q=>{
let[ue,de]=await Promise.all([Q.slice(v,k),Q.slice(V,z)]),W=Jn({view:new DataView(ue),offset:0},S,l),ee=Ye({view:new DataView(
de),offset:0});c[E][R]=ee.page_locations,L[R]={minValues:W.min_values,maxValues:W.max_values,nullPages:W.null_pages,nullCounts:W.
null_counts,pageStarts:ee.page_locations.map(P=>Number(P.first_row_index)),element:S}})}if(O)for(let R of x.columns){let B=R.
meta_data;if(!B)continue;let T=B.path_in_schema[0],M=B.path_in_schema.join(".");if(f&&!f.includes(T)||U.has(M)||!R.offset_index_offset||
!R.offset_index_length)continue;U.add(M);let S=Number(R.offset_index_offset),v=S+R.offset_index_length;g.push({startByte:S,
endByte:v}),N++,y.push(async V=>{let k=await V.slice(S,v),z=Ye({view:new DataView(k),offset:0});c[E][M]=z.page_locations})}
N&&m.push({rgIdx:E,groupRows:A,columnPages:L})}),y.length){let x=Ht(e,{fetches:mr(g)});await Promise.all(y.map(E=>E(x)));
for(let{rgIdx:E,groupRows:A,columnPages:I}of m)u[E]=at(n,I,A,r)}return{pageRangesByGroup:u,pageLocationsByGroup:c}}function mr(e,t=0,n=1/0){
let r=e.map(o=>({...o})).sort((o,f)=>o.startByte-f.startByte||o.endByte-f.endByte),i=[];for(let o of r){let f=i[i.length-
1];f&&o.startByte<=f.endByte+t&&Math.max(f.endByte,o.endByte)-f.startByte<=n?f.endByte=Math.max(f.endByte,o.endByte):i.push(
o)}return i}function yr(e){let t={};function n(r){if(r.children.length)for(let i of r.children)n(i);else t[r.path.join("\
.")]=r.element}return n(e),t}function Ht(e,{fetches:t}){let n=t.map(({startByte:r,endByte:i})=>e.slice(r,i));return{byteLength:e.
byteLength,slice(r,i=e.byteLength){let o=t.findIndex(({startByte:f,endByte:s})=>f<=r&&i<=s);if(o<0)return e.slice(r,i);if(t[o].
startByte!==r||t[o].endByte!==i){let f=r-t[o].startByte,s=i-t[o].startByte;return n[o]instanceof Promise?n[o].then(a=>a.
slice(f,s)):n[o].slice(f,s)}else return n[o]}}}var Zt=new TextDecoder,gr=new WeakMap;function Xt(e,t=oe){if(Array.isArray(e))return e.map(n=>Xt(n,t));if(typeof e!="obj\
ect")return e;if("metadata"in e){let n=Uo(e.metadata),r=e.typed_value&&lt(e.typed_value,n,t),i=e.value&&qe(ut(e.value),n,
t);return r&&i?{...i,...r}:r??i}return e}function lt(e,t,n){if(e instanceof Date)return e;if(e&&typeof e=="object"&&!Array.
isArray(e)&&!(e instanceof Uint8Array)){if("typed_value"in e&&e.typed_value!==null&&e.typed_value!==void 0)return lt(e.typed_value,
t,n);if("value"in e&&e.value instanceof Uint8Array)return qe(ut(e.value),t,n);if("typed_value"in e||"value"in e)return null;
let r={};for(let[i,o]of Object.entries(e))t.dictionary.includes(i)&&(r[i]=lt(o,t,n));return r}return e instanceof Uint8Array?
qe(ut(e),t,n):Array.isArray(e)?e.map(r=>lt(r,t,n)):e}function ut(e){return{view:new DataView(e.buffer,e.byteOffset,e.byteLength),
offset:0}}function Uo(e){let t=gr.get(e.buffer);t||(t=new Map,gr.set(e.buffer,t));let n=`${e.byteOffset}:${e.byteLength}`,
r=t.get(n);if(r)return r;let i=ut(e),o=i.view.getUint8(i.offset++),f=o&15;if(f!==1)throw new Error(`parquet unsupported \
variant metadata version: ${f}`);let s=(o>>4&1)===1,a=(o>>6&3)+1,l=Ee(i,a),u=new Array(l+1);for(let p=0;p<u.length;p++)u[p]=
Ee(i,a);let c=i.offset,d=new Array(l);for(let p=0;p<l;p++){let h=u[p],g=u[p+1],y=new Uint8Array(e.buffer,e.byteOffset+c+
h,g-h);d[p]=Zt.decode(y)}let _={dictionary:d,sorted:s};return t.set(n,_),_}function Ee(e,t){let n=0;for(let r=0;r<t;r++)
n|=e.view.getUint8(e.offset+r)<<r*8;return e.offset+=t,n}function qe(e,t,n){let r=e.view.getUint8(e.offset++),i=r&3,o=r>>
2;if(i===0)return Oo(e,o,n);if(i===2)return So(e,o,t,n);if(i===3)return Mo(e,o,t,n);let f=new Uint8Array(e.view.buffer,e.
view.byteOffset+e.offset,o);return e.offset+=o,Zt.decode(f)}function Oo(e,t,n){switch(t){case 0:return null;case 1:return!0;case 2:
return!1;case 3:{let r=e.view.getInt8(e.offset);return e.offset+=1,r}case 4:{let r=e.view.getInt16(e.offset,!0);return e.
offset+=2,r}case 5:{let r=e.view.getInt32(e.offset,!0);return e.offset+=4,r}case 6:{let r=e.view.getBigInt64(e.offset,!0);
return e.offset+=8,r}case 7:{let r=e.view.getFloat64(e.offset,!0);return e.offset+=8,r}case 8:return Wt(e,4);case 9:return Wt(
e,8);case 10:return Wt(e,16);case 11:{let r=e.view.getInt32(e.offset,!0);return e.offset+=4,n.dateFromDays(r)}case 12:case 13:{
let r=e.view.getBigInt64(e.offset,!0);return e.offset+=8,n.timestampFromMicroseconds(r)}case 14:{let r=e.view.getFloat32(
e.offset,!0);return e.offset+=4,r}case 15:return Ar(e);case 16:{let r=Ar(e);return Zt.decode(r)}case 17:{let r=e.view.getBigInt64(
e.offset,!0);return e.offset+=8,r}case 18:case 19:{let r=e.view.getBigInt64(e.offset,!0);return e.offset+=8,n.timestampFromNanoseconds(
r)}case 20:{let r=new Uint8Array(e.view.buffer,e.view.byteOffset+e.offset,16);e.offset+=16;let i=Array.from(r,o=>o.toString(
16).padStart(2,"0")).join("");return`${i.slice(0,8)}-${i.slice(8,12)}-${i.slice(12,16)}-${i.slice(16,20)}-${i.slice(20)}`}default:
throw new Error(`parquet unsupported variant primitive type: ${t}`)}}function So(e,t,n,r){let i=(t&3)+1,o=(t>>2&3)+1,s=t>>
4&1?Ee(e,4):e.view.getUint8(e.offset++),a=new Array(s);for(let c=0;c<s;c++)a[c]=Ee(e,o);let l=new Array(s+1);for(let c=0;c<
l.length;c++)l[c]=Ee(e,i);let u={};for(let c=0;c<s;c++){let d=n.dictionary[a[c]],_={view:e.view,offset:e.offset+l[c]};u[d]=
qe(_,n,r)}return e.offset+=l[l.length-1],u}function Mo(e,t,n,r){let i=t&3,o=t>>2&1,f=i+1,s=Ee(e,o?4:1),a=new Array(s+1);
for(let c=0;c<a.length;c++)a[c]=Ee(e,f);let l=e.offset,u=new Array(s);for(let c=0;c<s;c++){let d={view:e.view,offset:l+a[c]};
u[c]=qe(d,n,r)}return e.offset=l+a[a.length-1],u}function Wt(e,t){let n=e.view.getUint8(e.offset);e.offset+=1;let r;if(t===
4)r=BigInt(e.view.getInt32(e.offset,!0)),e.offset+=4;else if(t===8)r=e.view.getBigInt64(e.offset,!0),e.offset+=8;else{let i=e.
view.getBigUint64(e.offset,!0);r=e.view.getBigInt64(e.offset+8,!0)<<64n|i,e.offset+=16}return Number(r)/10**n}function Ar(e){
let t=e.view.getUint32(e.offset,!0);e.offset+=4;let n=new Uint8Array(e.view.buffer,e.view.byteOffset+e.offset,t);return e.
offset+=t,n}function Jt(e,t,n,r,i){let o=ve(i);if(!t?.length&&!n.length){if(!o||!r.length)return r;t=new Array(r.length).fill(o)}let f=t?.
length||n.length,s=i.map(({element:p})=>p.repetition_type),a=0,l=[e],u=e,c=0,d=0,_=0;if(n[0])for(;c<s.length-2&&_<n[0];)
c++,s[c]!=="REQUIRED"&&(u=u.at(-1),l.push(u),d++),s[c]==="REPEATED"&&_++;for(let p=0;p<f;p++){let h=t?.length?t[p]:o,g=n[p];
for(;c&&(g<_||s[c]!=="REPEATED");)s[c]!=="REQUIRED"&&(l.pop(),d--),s[c]==="REPEATED"&&_--,c--;for(u=l.at(-1);(c<s.length-
2||s[c+1]==="REPEATED")&&(d<h||s[c+1]==="REQUIRED");){if(c++,s[c]!=="REQUIRED"){let y=[];u.push(y),u=y,l.push(y),d++}s[c]===
"REPEATED"&&_++}h===o?u.push(r[a++]):c===s.length-2?u.push(s[c+1]==="REPEATED"?[]:null):u.push([])}if(!e.length)for(let p=0;p<
o;p++){let h=[];u.push(h),u=h}return e}function Se(e,t,n,r=0){let i=t.path.join("."),o=t.element.repetition_type==="OPTI\
ONAL",f=o?r+1:r;if(Hn(t)){let s=t.children[0],a=f;s.children.length===1&&(s=s.children[0],a++),Se(e,s,n,a);let l=s.path.
join("."),u=e.get(l);if(!u)throw new Error("parquet list column missing values");o&&dt(u,r),e.set(i,u),e.delete(l);return}
if(Wn(t)){let s=t.children[0].element.name;Se(e,t.children[0].children[0],n,f+1),Se(e,t.children[0].children[1],n,f+1);let a=e.
get(`${i}.${s}.key`),l=e.get(`${i}.${s}.value`);if(!a)throw new Error("parquet map column missing keys");if(!l)throw new Error(
"parquet map column missing values");if(a.length!==l.length)throw new Error("parquet map column key/value length mismatc\
h");let u=wr(a,l,f);o&&dt(u,r),e.delete(`${i}.${s}.key`),e.delete(`${i}.${s}.value`),e.set(i,u);return}if(t.children.length){
let s=t.element.repetition_type==="REQUIRED"?r:r+1,a={};for(let u of t.children){Se(e,u,n,s);let c=e.get(u.path.join("."));
if(!c)throw new Error("parquet struct missing child data");a[u.element.name]=c}for(let u of t.children)e.delete(u.path.join(
"."));let l=Er(a,s);t.element.logical_type?.type==="VARIANT"&&(l=Xt(l,n)),o&&dt(l,r),e.set(i,l)}}function dt(e,t){for(let n=0;n<
e.length;n++)t?dt(e[n],t-1):e[n]=e[n].length?e[n][0]:null}function wr(e,t,n){let r=[];for(let i=0;i<e.length;i++)if(n)r.
push(wr(e[i],t[i],n-1));else if(e[i]){let o={};for(let f=0;f<e[i].length;f++){let s=t[i][f];o[e[i][f]]=s===void 0?null:s}
r.push(o)}else r.push(void 0);return r}function Er(e,t){let n=Object.keys(e),r=e[n[0]]?.length,i=[];for(let o=0;o<r;o++){
let f={};for(let s of n){if(e[s].length!==r)throw new Error("parquet struct parsing error");f[s]=e[s][o]}t?i.push(Er(f,t-
1)):i.push(f)}return i}var Ir=[1,10,100,1e3,1e4,1e5,1e6,1e7,1e8,1e9,1e10,1e11,1e12,1e13,1e14,1e15,1e16,1e17,1e18],xr=[1,.1,.01,.001,1e-4,1e-5,1e-6,
1e-7,1e-8,1e-9,1e-10,1e-11,1e-12,1e-13,1e-14,1e-15,1e-16,1e-17,1e-18],Po=Ir.slice(0,11).map(Math.fround),Do=xr.slice(0,11).
map(Math.fround);function Qt(e,t,n){if(n==="FLOAT")return Co(e,t);if(n==="DOUBLE")return Fo(e,t);throw new Error(`ALP en\
coding unsupported type: ${n}`)}function Tr(e){let{view:t}=e,n=t.getUint8(e.offset++);if(n!==0)throw new Error(`ALP unsu\
pported compression mode: ${n}`);let r=t.getUint8(e.offset++);if(r!==0)throw new Error(`ALP unsupported integer encoding\
: ${r}`);let i=t.getUint8(e.offset++);if(i<3||i>15)throw new Error(`ALP invalid log_vector_size: ${i}`);let o=1<<i,f=t.getInt32(
e.offset,!0);e.offset+=4;let s=Math.ceil(f/o),a=e.offset;return e.offset+=s*4,{vectorSize:o,numElements:f,numVectors:s,offsetArrayStart:a}}
function Co(e,t){let{view:n}=e,{vectorSize:r,numElements:i,numVectors:o,offsetArrayStart:f}=Tr(e);if(i!==t)throw new Error(
`ALP num_elements ${i} does not match expected ${t}`);let s=new Float32Array(t),a=new Uint8Array(s.buffer);for(let l=0;l<
o;l++){e.offset=f+n.getUint32(f+l*4,!0);let u=l*r,c=Math.min(r,i-u),d=n.getUint8(e.offset++),_=n.getUint8(e.offset++),p=n.
getUint16(e.offset,!0);e.offset+=2;let h=n.getInt32(e.offset,!0);e.offset+=4;let g=n.getUint8(e.offset++),y=Br(e,c,g),m=Po[_],
w=Do[d];for(let x=0;x<c;x++){let E=y[x]+h|0;s[u+x]=Math.fround(Math.fround(E)*m)*w}br(e,p,4,a,u)}return s}function Fo(e,t){
let{view:n}=e,{vectorSize:r,numElements:i,numVectors:o,offsetArrayStart:f}=Tr(e);if(i!==t)throw new Error(`ALP num_eleme\
nts ${i} does not match expected ${t}`);let s=new Float64Array(t),a=new Uint8Array(s.buffer);for(let l=0;l<o;l++){e.offset=
f+n.getUint32(f+l*4,!0);let u=l*r,c=Math.min(r,i-u),d=n.getUint8(e.offset++),_=n.getUint8(e.offset++),p=n.getUint16(e.offset,
!0);e.offset+=2;let h=n.getBigInt64(e.offset,!0);e.offset+=8;let g=n.getUint8(e.offset++),y=Ir[_],m=xr[d],w=Number(h);if(g<=
32&&Number.isSafeInteger(w)){let x=Br(e,c,g);for(let E=0;E<c;E++)s[u+E]=(x[E]+w)*y*m}else{let x=vo(e,c,g);for(let E=0;E<
c;E++){let A=BigInt.asIntN(64,x[E]+h);s[u+E]=Number(A)*y*m}}br(e,p,8,a,u)}return s}function br(e,t,n,r,i){if(!t)return;let{
view:o}=e,f=e.offset,s=f+t*2,a=new Uint8Array(o.buffer,o.byteOffset+s,t*n);for(let l=0;l<t;l++){let u=o.getUint16(f+l*2,
!0),c=(i+u)*n;r.set(a.subarray(l*n,(l+1)*n),c)}e.offset=s+t*n}function Br(e,t,n){let r=new Uint32Array(t);if(!n)return r;
let{view:i}=e,o=e.offset,f=2**n,s=0;for(let a=0;a<t;a++){let l=o+(s>>>3),u=s&7,c=i.getUint8(l++)>>>u,d=8-u;for(;d<n;)c+=
i.getUint8(l++)*2**d,d+=8;r[a]=c%f,s+=n}return e.offset=o+Math.ceil(t*n/8),r}function vo(e,t,n){let r=new BigUint64Array(
t);if(!n)return r;let{view:i}=e,o=e.offset,f=(1n<<BigInt(n))-1n,s=0n,a=0,l=o;for(let u=0;u<t;u++){for(;a<n;)s|=BigInt(i.
getUint8(l++))<<BigInt(a),a+=8;r[u]=s&f,s>>=BigInt(n),a-=n}return e.offset=o+Math.ceil(t*n/8),r}function Me(e,t,n){if(n instanceof Int32Array){Yo(e,t,n);return}let r=j(e),i=j(e);j(e);let o=ft(e),f=0;n[f++]=o;let s=r/
i;for(;f<t;){let a=ft(e),l=new Uint8Array(i);for(let u=0;u<i;u++)l[u]=e.view.getUint8(e.offset++);for(let u=0;u<i&&f<t;u++){
let c=l[u];if(c){let d=0,_=s,p=(1n<<BigInt(c))-1n;for(;_&&f<t;){let h=BigInt(e.view.getUint32(e.offset,!0)>>>d)&p;for(d+=
c;d>=32;)d-=32,e.offset+=4,d&&(h|=BigInt(e.view.getUint32(e.offset,!0))<<BigInt(c-d)&p);let g=a+h;o+=g,n[f++]=o,_--}_&&(e.
offset+=Math.ceil((_*c+d)/8))}else for(let d=0;d<s&&f<t;d++)o+=a,n[f++]=o}}}function Yo(e,t,n){let r=j(e),i=j(e);j(e);let o=ot(
e),f=0;n[f++]=o;let s=r/i,{view:a}=e;for(;f<t;){let l=$o(e),u=e.offset,c=u+i;for(let d=0;d<i&&f<t;d++){let _=a.getUint8(
u+d),p=c+s*_/8,h=0;for(let g=0;g<s&&f<t;g++){let y=0,m=0;for(;m<_;){let w=Math.min(8-h,_-m);m<32&&(y|=(a.getUint8(c)>>>h&
(1<<w)-1)<<m),m+=w,h+=w,h===8&&(h=0,c++)}o=o+l+y|0,n[f++]=o}c=p}e.offset=c}}function $o(e){let t=e.offset,n=j(e),r=e.offset-
t===5?e.view.getUint8(t+4)>>>4&1:0;return(n>>>1|r<<31)^-(n&1)}function en(e,t,n){let r=new Int32Array(t);Me(e,t,r);for(let i=0;i<
t;i++)n[i]=new Uint8Array(e.view.buffer,e.view.byteOffset+e.offset,r[i]),e.offset+=r[i]}function tn(e,t,n){let r=new Int32Array(
t);Me(e,t,r);let i=new Int32Array(t);Me(e,t,i);for(let o=0;o<t;o++){let f=new Uint8Array(e.view.buffer,e.view.byteOffset+
e.offset,i[o]);r[o]?(n[o]=new Uint8Array(r[o]+i[o]),n[o].set(n[o-1].subarray(0,r[o])),n[o].set(f,r[o])):n[o]=f,e.offset+=
i[o]}}function se(e,t,n,r){r===void 0&&(r=e.view.getUint32(e.offset,!0),e.offset+=4);let i=e.offset,o=0;for(;o<n.length;){let f=j(
e);if(f&1)o=ko(e,f,t,n,o);else{let s=f>>>1;qo(e,s,t,n,o),o+=s}}e.offset=i+r}function qo(e,t,n,r,i){let o=n+7>>3,f=0;for(let s=0;s<
o;s++)f|=e.view.getUint8(e.offset++)<<(s<<3);for(let s=0;s<t;s++)r[i+s]=f}function ko(e,t,n,r,i){let o=t>>1<<3,f=(1<<n)-
1,s=0;if(e.offset<e.view.byteLength)s=e.view.getUint8(e.offset++);else if(f)throw new Error(`parquet bitpack offset ${e.
offset} out of range`);let a=8,l=0;for(;o;)l>8?(l-=8,a-=8,s>>>=8):a-l<n?(s|=e.view.getUint8(e.offset)<<a,e.offset++,a+=8):
(i<r.length&&(r[i++]=s>>l&f),o--,l+=n);return i}function nn(e,t,n,r){let i=Vo(n,r),o=new Uint8Array(t*i);for(let f=0;f<i;f++)
for(let s=0;s<t;s++)o[s*i+f]=e.view.getUint8(e.offset++);if(n==="FLOAT")return new Float32Array(o.buffer);if(n==="DOUBLE")
return new Float64Array(o.buffer);if(n==="INT32")return new Int32Array(o.buffer);if(n==="INT64")return new BigInt64Array(
o.buffer);if(n==="FIXED_LEN_BYTE_ARRAY"){let f=new Array(t);for(let s=0;s<t;s++)f[s]=o.subarray(s*i,(s+1)*i);return f}throw new Error(
`parquet byte_stream_split unsupported type: ${n}`)}function Vo(e,t){switch(e){case"INT32":case"FLOAT":return 4;case"INT\
64":case"DOUBLE":return 8;case"FIXED_LEN_BYTE_ARRAY":if(!t)throw new Error("parquet byteWidth missing type_length");return t;default:
throw new Error(`parquet unsupported type: ${e}`)}}function ke(e,t,n,r){if(n===0)return[];if(t==="BOOLEAN")return zo(e,n);if(t==="INT32")return Go(e,n);if(t==="INT64")return jo(
e,n);if(t==="INT96")return Ko(e,n);if(t==="FLOAT")return Ho(e,n);if(t==="DOUBLE")return Wo(e,n);if(t==="BYTE_ARRAY")return Zo(
e,n);if(t==="FIXED_LEN_BYTE_ARRAY"){if(!r)throw new Error("parquet missing fixed length");return Xo(e,n,r)}else throw new Error(
`parquet unhandled type: ${t}`)}function zo(e,t){let n=new Array(t);for(let r=0;r<t;r++){let i=e.offset+(r/8|0),o=r%8,f=e.
view.getUint8(i);n[r]=(f&1<<o)!==0}return e.offset+=Math.ceil(t/8),n}function Go(e,t){let n=(e.view.byteOffset+e.offset)%
4?new Int32Array(pt(e.view.buffer,e.view.byteOffset+e.offset,t*4)):new Int32Array(e.view.buffer,e.view.byteOffset+e.offset,
t);return e.offset+=t*4,n}function jo(e,t){let n=(e.view.byteOffset+e.offset)%8?new BigInt64Array(pt(e.view.buffer,e.view.
byteOffset+e.offset,t*8)):new BigInt64Array(e.view.buffer,e.view.byteOffset+e.offset,t);return e.offset+=t*8,n}function Ko(e,t){
let n=new Array(t);for(let r=0;r<t;r++){let i=e.view.getBigInt64(e.offset+r*12,!0),o=e.view.getInt32(e.offset+r*12+8,!0);
n[r]=BigInt(o)<<64n|i}return e.offset+=t*12,n}function Ho(e,t){let n=(e.view.byteOffset+e.offset)%4?new Float32Array(pt(
e.view.buffer,e.view.byteOffset+e.offset,t*4)):new Float32Array(e.view.buffer,e.view.byteOffset+e.offset,t);return e.offset+=
t*4,n}function Wo(e,t){let n=(e.view.byteOffset+e.offset)%8?new Float64Array(pt(e.view.buffer,e.view.byteOffset+e.offset,
t*8)):new Float64Array(e.view.buffer,e.view.byteOffset+e.offset,t);return e.offset+=t*8,n}function Zo(e,t){let n=new Array(
t);for(let r=0;r<t;r++){let i=e.view.getUint32(e.offset,!0);e.offset+=4,n[r]=new Uint8Array(e.view.buffer,e.view.byteOffset+
e.offset,i),e.offset+=i}return n}function Xo(e,t,n){let r=new Array(t);for(let i=0;i<t;i++)r[i]=new Uint8Array(e.view.buffer,
e.view.byteOffset+e.offset,n),e.offset+=n;return r}function pt(e,t,n){let r=new ArrayBuffer(n);return new Uint8Array(r).
set(new Uint8Array(e,t,n)),r}var Jo=[0,255,65535,16777215,4294967295];function Lr(e,t,n,r,i){for(let o=0;o<i;o++)n[r+o]=e[t+o]}function Rr(e,t){let n=e.
byteLength,r=t.byteLength,i=0,o=0;for(;i<n;){let f=e[i];if(i++,f<128)break}if(r&&i>=n)throw new Error("invalid snappy le\
ngth header");for(;i<n;){let f=e[i],s=0;if(i++,i>=n)throw new Error("missing eof marker");if((f&3)===0){let a=(f>>>2)+1;
if(a>60){if(i+3>=n)throw new Error("snappy error literal pos + 3 >= inputLength");let l=a-60;a=e[i]+(e[i+1]<<8)+(e[i+2]<<
16)+(e[i+3]<<24),a=(a&Jo[l])+1,i+=l}if(i+a>n)throw new Error("snappy error literal exceeds input length");Lr(e,i,t,o,a),
i+=a,o+=a}else{let a=0;switch(f&3){case 1:s=(f>>>2&7)+4,a=e[i]+(f>>>5<<8),i++;break;case 2:if(n<=i+1)throw new Error("sn\
appy error end of input");s=(f>>>2)+1,a=e[i]+(e[i+1]<<8),i+=2;break;case 3:if(n<=i+3)throw new Error("snappy error end o\
f input");s=(f>>>2)+1,a=e[i]+(e[i+1]<<8)+(e[i+2]<<16)+(e[i+3]<<24),i+=4;break;default:break}if(a===0||isNaN(a))throw new Error(
`invalid offset ${a} pos ${i} inputLength ${n}`);if(a>o)throw new Error("cannot copy from before start of buffer");Lr(t,
o-a,t,o,s),o+=s}}if(o!==r)throw new Error("premature end of input")}function Nr(e,t,{type:n,element:r,schemaPath:i}){let o=new DataView(e.buffer,e.byteOffset,e.byteLength),f={view:o,offset:0},
s,a=Qo(f,t,i),{definitionLevels:l,numNulls:u}=ef(f,t,i),c=t.num_values-u;if(t.encoding==="PLAIN")s=ke(f,n,c,r.type_length);else if(t.
encoding==="PLAIN_DICTIONARY"||t.encoding==="RLE_DICTIONARY"||t.encoding==="RLE"){let d=n==="BOOLEAN"?1:o.getUint8(f.offset++);
d?(s=new Array(c),n==="BOOLEAN"?(se(f,d,s),s=s.map(_=>!!_)):se(f,d,s,o.byteLength-f.offset)):s=new Uint8Array(c)}else if(t.
encoding==="BYTE_STREAM_SPLIT")s=nn(f,c,n,r.type_length);else if(t.encoding==="ALP")s=Qt(f,c,n);else if(t.encoding==="DE\
LTA_BINARY_PACKED")s=n==="INT32"?new Int32Array(c):new BigInt64Array(c),Me(f,c,s);else if(t.encoding==="DELTA_LENGTH_BYT\
E_ARRAY")s=new Array(c),en(f,c,s);else if(t.encoding==="DELTA_BYTE_ARRAY")s=new Array(c),tn(f,c,s);else throw new Error(
`parquet unsupported encoding: ${t.encoding}`);return{definitionLevels:l,repetitionLevels:a,dataPage:s}}function Qo(e,t,n){
if(n.length>1){let r=Yt(n);if(r){let i=new Array(t.num_values);return se(e,ht(r),i),i}}return[]}function ef(e,t,n){let r=ve(
n);if(!r)return{definitionLevels:[],numNulls:0};let i=new Array(t.num_values);se(e,ht(r),i);let o=t.num_values;for(let f of i)
f===r&&o--;return o===0&&(i.length=0),{definitionLevels:i,numNulls:o}}function _t(e,t,n,r){let i,o=r?.[n];if(n==="UNCOMP\
RESSED")i=e;else if(o)i=o(e,t);else if(n==="SNAPPY")i=new Uint8Array(t),Rr(e,i);else throw new Error(`parquet unsupporte\
d compression codec: ${n}`);if(i?.length!==t)throw new Error(`parquet decompressed page length ${i?.length} does not mat\
ch header ${t}`);return i}function Ur(e,t,n){let i={view:new DataView(e.buffer,e.byteOffset,e.byteLength),offset:0},{type:o,
element:f,schemaPath:s,codec:a,compressors:l}=n,u=t.data_page_header_v2;if(!u)throw new Error("parquet data page header \
v2 is undefined");let c=tf(i,u,s);i.offset=u.repetition_levels_byte_length;let d=nf(i,u,s),_=t.uncompressed_page_size-u.
definition_levels_byte_length-u.repetition_levels_byte_length,p=e.subarray(i.offset);u.is_compressed!==!1&&_&&(p=_t(p,_,
a,l));let h=new DataView(p.buffer,p.byteOffset,p.byteLength),g={view:h,offset:0},y,m=u.num_values-u.num_nulls;if(u.encoding===
"PLAIN")y=ke(g,o,m,f.type_length);else if(u.encoding==="RLE")y=new Array(m),se(g,1,y),y=y.map(w=>!!w);else if(u.encoding===
"PLAIN_DICTIONARY"||u.encoding==="RLE_DICTIONARY"){let w=h.getUint8(g.offset++);y=new Array(m),se(g,w,y,_-1)}else if(u.encoding===
"DELTA_BINARY_PACKED")y=o==="INT32"?new Int32Array(m):new BigInt64Array(m),Me(g,m,y);else if(u.encoding==="DELTA_LENGTH_\
BYTE_ARRAY")y=new Array(m),en(g,m,y);else if(u.encoding==="DELTA_BYTE_ARRAY")y=new Array(m),tn(g,m,y);else if(u.encoding===
"BYTE_STREAM_SPLIT")y=nn(g,m,o,f.type_length);else if(u.encoding==="ALP")y=Qt(g,m,o);else throw new Error(`parquet unsup\
ported encoding: ${u.encoding}`);return{definitionLevels:d,repetitionLevels:c,dataPage:y}}function tf(e,t,n){let r=Yt(n);
if(!r)return[];let i=new Array(t.num_values);return se(e,ht(r),i,t.repetition_levels_byte_length),i}function nf(e,t,n){let r=ve(
n);if(r){let i=new Array(t.num_values);return se(e,ht(r),i,t.definition_levels_byte_length),i}}function ht(e){return 32-
Math.clz32(e)}function rn(e,{groupStart:t,selectStart:n,selectEnd:r},i,o){let{pathInSchema:f,schemaPath:s}=i,a=$t(s),l=[],u,c,d=0,_=0,
p=o&&(()=>{c&&o({pathInSchema:f,columnData:c,rowStart:t+d-c.length,rowEnd:t+d})});for(;(a?d<r:e.offset<e.view.byteLength-
1)&&!(e.offset>=e.view.byteLength-1);){let h=rf(e);if(h.type==="DICTIONARY_PAGE"){let{data:g}=Or(e,h,i,u,void 0,0);g&&(u=
Ct(g,i))}else{let g=c?.length||0,y=Or(e,h,i,u,c,n-d);y.skipped?(l.length||(_+=y.skipped),d+=y.skipped):y.data&&c===y.data?
d+=y.data.length-g:y.data&&y.data.length&&(p?.(),l.push(y.data),d+=y.data.length,c=y.data)}}return p?.(),{data:l,skipped:_}}
function Or(e,t,n,r,i,o){let{type:f,element:s,schemaPath:a,codec:l,compressors:u}=n,c=new Uint8Array(e.view.buffer,e.view.
byteOffset+e.offset,t.compressed_page_size);if(e.offset+=t.compressed_page_size,t.type==="DATA_PAGE"){let d=t.data_page_header;
if(!d)throw new Error("parquet data page header is undefined");if(o>d.num_values&&$t(a))return{skipped:d.num_values};let _=_t(
c,Number(t.uncompressed_page_size),l,u),{definitionLevels:p,repetitionLevels:h,dataPage:g}=Nr(_,d,n),y=Dt(g,r,d.encoding,
n),m=Array.isArray(i)?i:[];return{skipped:0,data:Jt(m,p,h,y,a)}}else if(t.type==="DATA_PAGE_V2"){let d=t.data_page_header_v2;
if(!d)throw new Error("parquet data page header v2 is undefined");if(o>d.num_rows)return{skipped:d.num_rows};let{definitionLevels:_,
repetitionLevels:p,dataPage:h}=Ur(c,t,n),g=Dt(h,r,d.encoding,n),y=Array.isArray(i)?i:[];return{skipped:0,data:Jt(y,_,p,g,
a)}}else if(t.type==="DICTIONARY_PAGE"){let d=t.dictionary_page_header;if(!d)throw new Error("parquet dictionary page he\
ader is undefined");let _=_t(c,Number(t.uncompressed_page_size),l,u),p={view:new DataView(_.buffer,_.byteOffset,_.byteLength),
offset:0};return{skipped:0,data:ke(p,f,d.num_values,s.type_length)}}else throw new Error(`parquet unsupported page type:\
 ${t.type}`)}function rf(e){let t=ne(e),n=tt[t.field_1],r=t.field_2,i=t.field_3,o=t.field_4,f=t.field_5&&{num_values:t.field_5.
field_1,encoding:ie[t.field_5.field_2],definition_level_encoding:ie[t.field_5.field_3],repetition_level_encoding:ie[t.field_5.
field_4],statistics:Sr(t.field_5.field_5)},s=t.field_6,a=t.field_7&&{num_values:t.field_7.field_1,encoding:ie[t.field_7.
field_2],is_sorted:t.field_7.field_3},l=t.field_8&&{num_values:t.field_8.field_1,num_nulls:t.field_8.field_2,num_rows:t.
field_8.field_3,encoding:ie[t.field_8.field_4],definition_levels_byte_length:t.field_8.field_5,repetition_levels_byte_length:t.
field_8.field_6,is_compressed:t.field_8.field_7===void 0?!0:t.field_8.field_7,statistics:Sr(t.field_8.field_8)};return{type:n,
uncompressed_page_size:r,compressed_page_size:i,crc:o,data_page_header:f,index_page_header:s,dictionary_page_header:a,data_page_header_v2:l}}
function Sr(e){return e&&{max:e.field_1,min:e.field_2,null_count:e.field_3,distinct_count:e.field_4,max_value:e.field_5,
min_value:e.field_6,is_max_value_exact:e.field_7,is_min_value_exact:e.field_8}}function Pr(e,{metadata:t},n){let r=[],i=G(t);for(let o of n.chunks){let{path_in_schema:f}=o.columnMetadata,s=vt(i,f),a={
pathInSchema:f,element:s[s.length-1].element,schemaPath:s,...e,...o.columnMetadata,parsers:{...oe,...e.parsers}},{startByte:l,
endByte:u}=o.range;"pageLocations"in o?r.push({pathInSchema:f,data:Mr(e,n,o,o.pageLocations,a)}):"offsetIndex"in o?r.push(
{pathInSchema:f,data:Promise.resolve(e.file.slice(o.offsetIndex.startByte,o.offsetIndex.endByte)).then(c=>{let d=Ye({view:new DataView(
c),offset:0}).page_locations;return Mr(e,n,o,d,a)})}):r.push({pathInSchema:f,data:Promise.resolve(e.file.slice(l,u)).then(
c=>{let d={view:new DataView(c),offset:0};return rn(d,n,a,e.onPage)})})}return{groupStart:n.groupStart,groupRows:n.groupRows,
selectStart:n.selectStart,selectEnd:n.selectEnd,asyncColumns:r}}async function Mr(e,t,n,r,i){let{data_page_offset:o,dictionary_page_offset:f}=n.
columnMetadata,{selectStart:s,selectEnd:a}=t,{startByte:l,endByte:u}=n.range,c=-1,d=f||o<r[0].offset;for(let m=0;m<r.length;m++){
let w=r[m],x=Number(w.first_row_index),E=m+1<r.length?Number(r[m+1].first_row_index):t.groupRows;c<0&&E>s&&(l=Number(w.offset),
c=x),x<a&&(u=Number(w.offset)+w.compressed_page_size)}c<0&&(c=0);let _;if(d&&c){let m=Number(r[0].offset)-n.range.startByte,
[w,x]=await Promise.all([e.file.slice(n.range.startByte,Number(r[0].offset)),e.file.slice(l,u)]),E=new Uint8Array(m+x.byteLength);
E.set(new Uint8Array(w,0,m)),E.set(new Uint8Array(x),m),_=new DataView(E.buffer)}else d?_=new DataView(await e.file.slice(
n.range.startByte,u)):_=new DataView(await e.file.slice(l,u));let p={view:_,offset:0},h=c?{...t,groupStart:t.groupStart+
c,selectStart:t.selectStart-c,selectEnd:t.selectEnd-c}:t,{data:g,skipped:y}=rn(p,h,i,e.onPage);return{data:g,skipped:c+y}}
async function on({asyncColumns:e},t,n,r,i){let o=await Promise.all(e.map(c=>c.data.then(({skipped:d,data:_})=>({skipped:d,
data:Kt(_)})))),f=n-t;if(i==="object"){let c=Array(f);for(let d=0;d<f;d++){let _={};for(let p=0;p<e.length;p++){let{data:h,
skipped:g}=o[p];_[e[p].pathInSchema[0]]=h[t+d-g]}c[d]=_}return c}let s=e.map(c=>c.pathInSchema[0]).filter(c=>!r||r.includes(
c)),a=r??s,l=a.map(c=>e.findIndex(d=>d.pathInSchema[0]===c)),u=Array(f);for(let c=0;c<f;c++){let d=Array(e.length);for(let _=0;_<
a.length;_++){let p=l[_];if(p<0)throw new Error(`parquet column not found: ${a[_]}`);let{data:h,skipped:g}=o[p];d[_]=h[t+
c-g]}u[c]=d}return u}function fn(e,t,n){let{asyncColumns:r}=e,i={...oe,...n},o=[];for(let f of t.children)if(f.children.
length){let s=r.filter(a=>a.pathInSchema[0]===f.element.name);if(!s.length)continue;o.push({pathInSchema:f.path,data:(async()=>{
let a=await Promise.all(s.map(p=>p.data)),l=new Map,u=a.map(({data:p})=>Kt(p)),c=Math.max(e.selectStart??0,...a.map(p=>p.
skipped)),d=Math.min(e.selectEnd??1/0,...a.map((p,h)=>p.skipped+u[h].length));for(let p=0;p<s.length;p++){let h=c-a[p].skipped,
g=Math.max(0,d-c);l.set(s[p].pathInSchema.join("."),u[p].slice(h,h+g))}Se(l,f,i);let _=l.get(f.element.name);if(!_)throw new Error(
"parquet column data not assembled");return{data:[_],skipped:c}})()})}else{let s=r.find(a=>a.pathInSchema[0]===f.element.
name);s&&o.push(s)}return{...e,asyncColumns:o}}async function Dr(e){let t=await of(e);return{options:t,plan:ur(t)}}async function of(e){let t=e.metadata??await Ae(e.file,
e),n=G(t).children.map(f=>f.element.name),i=ct(e.filter).filter(f=>!n.includes(f));if(i.length)throw new Error(`parquet \
filter columns not found: ${i.join(", ")}`);if(e.columns){let f=e.columns.filter(s=>!n.includes(s));if(f.length)throw new Error(
`parquet column not found: ${f[0]}`)}let o={...e,metadata:t};return o=await ff(o),o=await sf(o),o}function Cr(e,t){let n={
...e,file:Ht(e.file,t)};return t.groups.map(r=>Pr(n,t,r))}async function ff(e){if(!e.useBloomFilters||!e.filter||!e.metadata)return e;let t=G(e.metadata),n={};for(let i of t.children)
n[i.element.name]=i.element;let r=await _r({file:e.file,metadata:e.metadata,filter:e.filter,filterStrict:e.filterStrict});
return{...e,bloomFiltersByGroup:r,schemaElements:n}}async function sf(e){if(!e.usePageIndex||!e.filter||!e.metadata)return e;
let{pageRangesByGroup:t,pageLocationsByGroup:n}=await hr({file:e.file,metadata:e.metadata,filter:e.filter,filterStrict:e.
filterStrict,rowStart:e.rowStart,rowEnd:e.rowEnd,columns:e.columns,bloomFiltersByGroup:e.bloomFiltersByGroup,schemaElements:e.
schemaElements,parsers:e.parsers});return{...e,pageRangesByGroup:t,pageLocationsByGroup:n}}var Fr=Symbol("rowIndex");async function vr(e){e.metadata??=await Ae(e.file,e);let{rowStart:t=0,rowEnd:n,columns:r,onChunk:i,
onComplete:o,rowFormat:f,filter:s,filterStrict:a=!0}=e;if(s&&f!=="object")throw new Error('parquet filter requires rowFo\
rmat: "object"');if(e.includeRowIndex&&f!=="object")throw new Error('parquet includeRowIndex requires rowFormat: "object\
"');let l=ct(s),u=r;if(r&&l.length){let m=new Set(r),w=l.filter(x=>!m.has(x));w.length&&(u=[...r,...w])}let c=u===r?e:{...e,
columns:u},d=await Dr(c),_=d.options,p=u!==r,h=Cr(_,d.plan);if(!o&&!i){await sn(h);return}if(!_.metadata)throw new Error(
"parquet requires metadata");let g=G(_.metadata),y=h.map(m=>fn(m,g,e.parsers));if(i)for(let m of y)for(let w of m.asyncColumns)
w.data.then(({data:x,skipped:E})=>{let A=m.groupStart+E;for(let I of x)i({columnName:w.pathInSchema[0],columnData:I,rowStart:A,
rowEnd:A+I.length}),A+=I.length},()=>{});if(o){await sn(y);let m=[];for(let w of y){let x=w.selectStart??Math.max(t-w.groupStart,
0),E=w.selectEnd??Math.min((n??1/0)-w.groupStart,w.groupRows),A=f==="object"?await on(w,x,E,u,"object"):await on(w,x,E,r,
"array");if(e.includeRowIndex)for(let I=0;I<A.length;I++)Object.defineProperty(A[I],Fr,{value:w.groupStart+x+I});if(s){for(let I of A)
if(_e(I,s,a)){if(p&&r)for(let b of l)r.includes(b)||delete I[b];m.push(I)}}else jt(m,A)}o(m)}else await sn(y)}async function sn(e){
let t=e.flatMap(i=>i.asyncColumns.map(o=>o.data)),r=(await Promise.allSettled(t)).find(i=>i.status==="rejected");if(r)throw r.
reason}function an(e){return new Promise((t,n)=>{vr({...e,rowFormat:"object",onComplete:t}).catch(n)})}var ln=new Uint8Array([0,0,0,0,0,0,0,0,1,1,1,1,2,2,2,2,3,3,3,3,4,4,4,4,5,5,5,5,0,0,0,0]),un=new Uint8Array([0,0,0,0,1,1,
2,2,3,3,4,4,5,5,6,6,7,7,8,8,9,9,10,10,11,11,12,12,13,13,0,0]);function Yr(e,t){let n=new Uint16Array(31);for(let i=0;i<31;i++)
n[i]=t+=1<<e[i-1];let r=new Int32Array(n[30]);for(let i=1;i<30;i++)for(let o=n[i];o<n[i+1];++o)r[o]=o-n[i]<<5|i;return{base:n,
rev:r}}var{base:dn,rev:af}=Yr(ln,2);dn[28]=258;af[258]=28;var{base:$r}=Yr(un,0),cn=new Uint16Array(32768);for(let e=0;e<
32768;e++){let t=(e&43690)>>1|(e&21845)<<1;t=(t&52428)>>2|(t&13107)<<2,t=(t&61680)>>4|(t&3855)<<4,cn[e]=((t&65280)>>8|(t&
255)<<8)>>1}function Pe(e,t,n){let r=new Uint16Array(t);for(let f=0;f<e.length;f++)e[f]&&++r[e[f]-1];let i=new Uint16Array(
t);for(let f=1;f<t;f++)i[f]=i[f-1]+r[f-1]<<1;let o;if(n){o=new Uint16Array(1<<t);let f=15-t;for(let s=0;s<e.length;s++)if(e[s]){
let a=s<<4|e[s],l=t-e[s],u=i[e[s]-1]++<<l;for(let c=u|(1<<l)-1;u<=c;u++)o[cn[u]>>f]=a}}else{o=new Uint16Array(e.length);
for(let f=0;f<e.length;f++)e[f]&&(o[f]=cn[i[e[f]-1]++]>>15-e[f])}return o}var Ve=new Uint8Array(288);for(let e=0;e<144;e++)
Ve[e]=8;for(let e=144;e<256;e++)Ve[e]=9;for(let e=256;e<280;e++)Ve[e]=7;for(let e=280;e<288;e++)Ve[e]=8;var qr=new Uint8Array(
32);for(let e=0;e<32;e++)qr[e]=5;var kr=Pe(Ve,9,1),Vr=Pe(qr,5,1);var cf=new Uint8Array([16,17,18,0,8,7,9,6,10,5,11,4,12,3,13,2,14,1,15]);function J(e,t,n){let r=t/8|0;return(e[r]|e[r+1]<<
8)>>(t&7)&n}function pn(e,t){let n=t/8|0;return(e[n]|e[n+1]<<8|e[n+2]<<16)>>(t&7)}function lf(e){return(e+7)/8|0}function uf(e,t){
if(e[t++]!==31||e[t++]!==139||e[t++]!==8)return 0;let n=e[t++];t+=6,n&4&&(t+=(e[t+10]|e[t+11]<<8)+2);for(let r=(n>>3&1)+
(n>>4&1);r>0;r-=+!e[t++]);return t+(n&2)}function _n(e,t,n=0,r=0){let i=t??new Uint8Array(1024);if(!(e.length-n))return i;
let o=uf(e,n);if(o===e.length-8)return i;if(o>e.length-8)throw new Error("unexpected EOF");let f=o*8,s=0,a=0,l=0,u,c,d=e.
length*8;function _(p){if(!t&&p>i.length){let h=i;i=new Uint8Array(Math.max(h.length*2,p)),i.set(h)}}do{if(!u){s=J(e,f,1);
let g=J(e,f+1,3);if(f+=3,g)if(g===1)u=kr,c=Vr,a=9,l=5;else if(g===2){let y=J(e,f,31)+257,m=J(e,f+10,15)+4,w=y+J(e,f+5,31)+
1;f+=14;let x=new Uint8Array(w),E=new Uint8Array(19);for(let U=0;U<m;++U)E[cf[U]]=J(e,f+U*3,7);f+=m*3;let A=Math.max(...E),
I=(1<<A)-1,b=Pe(E,A,1);for(let U=0;U<w;){let O=b[J(e,f,I)];f+=O&15;let R=O>>4;if(R<16)x[U++]=R;else{let B=0,T=0;for(R===
16?(T=3+J(e,f,3),f+=2,B=x[U-1]):R===17?(T=3+J(e,f,7),f+=3):R===18&&(T=11+J(e,f,127),f+=7);T--;)x[U++]=B}}let L=x.subarray(
0,y),N=x.subarray(y);a=Math.max(...L),l=Math.max(...N),u=Pe(L,a,1),c=Pe(N,l,1)}else throw new Error("invalid block type");else{
let y=lf(f)+4,m=e[y-4]|e[y-3]<<8,w=y+m;if(w>e.length)throw new Error("unexpected EOF");_(r+m),i.set(e.subarray(y,w),r),r+=
m,f=w*8;continue}if(f>d)throw new Error("unexpected EOF")}_(r+131072);let p=(1<<a)-1,h=(1<<l)-1;for(;;){let g=u[pn(e,f)&
p],y=g>>4;if(f+=g&15,f>d)throw new Error("unexpected EOF");if(!g)throw new Error("invalid length/literal");if(y<256)i[r++]=
y;else if(y===256){u=void 0;break}else{let m=y-254;if(y>264){let I=y-257,b=ln[I];m=J(e,f,(1<<b)-1)+dn[I],f+=b}if(!c)throw new Error(
"invalid distance map");let w=c[pn(e,f)&h],x=w>>4;if(!w)throw new Error("invalid distance");f+=w&15;let E=$r[x];if(x>3){
let I=un[x];E+=pn(e,f)&(1<<I)-1,f+=I}if(f>d)throw new Error("unexpected EOF");let A=r+m;if(r<E)throw new Error("unexpect\
ed dictionary case");for(_(A);r<A;r++)i[r]=i[r-E]}}u&&(s=1)}while(!s);if(r<i.length){let p=Math.ceil(f/8)+8;_n(e,i,p,r)}
return t?i:i.subarray(0,r)}var df=ArrayBuffer,D=Uint8Array,mt=Uint16Array,pf=Int16Array;var yt=Int32Array,hn=function(e,t,n){if(D.prototype.slice)return D.prototype.slice.call(e,t,n);(t==null||t<0)&&(t=0),(n==
null||n>e.length)&&(n=e.length);var r=new D(n-t);return r.set(e.subarray(t,n)),r},Ge=function(e,t,n,r){if(D.prototype.fill)
return D.prototype.fill.call(e,t,n,r);for((n==null||n<0)&&(n=0),(r==null||r>e.length)&&(r=e.length);n<r;++n)e[n]=t;return e},
_f=function(e,t,n,r){if(D.prototype.copyWithin)return D.prototype.copyWithin.call(e,t,n,r);for((n==null||n<0)&&(n=0),(r==
null||r>e.length)&&(r=e.length);n<r;)e[t++]=e[n++]};var hf=["invalid zstd data","window size too large (>2046MB)","invalid block type","FSE accuracy too high","match distan\
ce too far back","unexpected EOF"],C=function(e,t,n){var r=new Error(t||hf[e]);if(r.code=e,Error.captureStackTrace&&Error.
captureStackTrace(r,C),!n)throw r;return r},zr=function(e,t,n){for(var r=0,i=0;r<n;++r)i|=e[t++]<<(r<<3);return i},mf=function(e,t){
return(e[t]|e[t+1]<<8|e[t+2]<<16|e[t+3]<<24)>>>0},yf=function(e,t){var n=e[0]|e[1]<<8|e[2]<<16;if(n==3126568&&e[3]==253){
var r=e[4],i=r>>5&1,o=r>>2&1,f=r&3,s=r>>6;r&8&&C(0);var a=6-i,l=f==3?4:f,u=zr(e,a,l);a+=l;var c=s?1<<s:i,d=zr(e,a,c)+(s==
1&&256),_=d;if(!i){var p=1<<10+(e[5]>>3);_=p+(p>>3)*(e[5]&7)}_>2145386496&&C(1);var h=new D((t==1?d||_:t?0:_)+12);return h[0]=
1,h[4]=4,h[8]=8,{b:a+c,y:0,l:0,d:u,w:t&&t!=1?t:h.subarray(12),e:_,o:new yt(h.buffer,0,3),u:d,c:o,m:Math.min(131072,_)}}else if((n>>
4|e[3]<<20)==25481893)return mf(e,4)+8;C(0)},Ie=function(e){for(var t=0;1<<t<=e;++t);return t-1},je=function(e,t,n){var r=(t<<
3)+4,i=(e[t]&15)+5;i>n&&C(3);for(var o=1<<i,f=o,s=-1,a=-1,l=-1,u=o,c=new df(512+(o<<2)),d=new pf(c,0,256),_=new mt(c,0,256),
p=new mt(c,512,o),h=512+(o<<1),g=new D(c,h,o),y=new D(c,h+o);s<255&&f>0;){var m=Ie(f+1),w=r>>3,x=(1<<m+1)-1,E=(e[w]|e[w+
1]<<8|e[w+2]<<16)>>(r&7)&x,A=(1<<m)-1,I=x-f-1,b=E&A;if(b<I?(r+=m,E=b):(r+=m+1,E>A&&(E-=I)),d[++s]=--E,E==-1?(f+=E,g[--u]=
s):f-=E,!E)do{var L=r>>3;a=(e[L]|e[L+1]<<8)>>(r&7)&3,r+=2,s+=a}while(a==3)}(s>255||f)&&C(0);for(var N=0,U=(o>>1)+(o>>3)+
3,O=o-1,R=0;R<=s;++R){var B=d[R];if(B<1){_[R]=-B;continue}for(l=0;l<B;++l){g[N]=R;do N=N+U&O;while(N>=u)}}for(N&&C(0),l=
0;l<o;++l){var T=_[g[l]]++,M=y[l]=i-Ie(T);p[l]=(T<<M)-o}return[r+7>>3,{b:i,s:g,n:y,t:p}]},gf=function(e,t){var n=0,r=-1,
i=new D(292),o=e[t],f=i.subarray(0,256),s=i.subarray(256,268),a=new mt(i.buffer,268);if(o<128){var l=je(e,t+1,6),u=l[0],
c=l[1];t+=o;var d=u<<3,_=e[t];_||C(0);for(var p=0,h=0,g=c.b,y=g,m=(++t<<3)-8+Ie(_);m-=g,!(m<d);){var w=m>>3;if(p+=(e[w]|
e[w+1]<<8)>>(m&7)&(1<<g)-1,f[++r]=c.s[p],m-=y,m<d)break;w=m>>3,h+=(e[w]|e[w+1]<<8)>>(m&7)&(1<<y)-1,f[++r]=c.s[h],g=c.n[p],
p=c.t[p],y=c.n[h],h=c.t[h]}++r>255&&C(0)}else{for(r=o-127;n<r;n+=2){var x=e[++t];f[n]=x>>4,f[n+1]=x&15}++t}var E=0;for(n=
0;n<r;++n){var A=f[n];A>11&&C(0),E+=A&&1<<A-1}var I=Ie(E)+1,b=1<<I,L=b-E;for(L&L-1&&C(0),f[r++]=Ie(L)+1,n=0;n<r;++n){var A=f[n];
++s[f[n]=A&&I+1-A]}var N=new D(b<<1),U=N.subarray(0,b),O=N.subarray(b);for(a[I]=0,n=I;n>0;--n){var R=a[n];Ge(O,n,R,a[n-1]=
R+s[n]*(1<<I-n))}for(a[0]!=b&&C(0),n=0;n<r;++n){var B=f[n];if(B){var T=a[B];Ge(U,n,T,a[B]=T+(1<<I-B))}}return[t,{n:O,b:I,
s:U}]},Af=je(new D([81,16,99,140,49,198,24,99,12,33,196,24,99,102,102,134,70,146,4]),0,6)[1],wf=je(new D([33,20,196,24,99,
140,33,132,16,66,8,33,132,16,66,8,33,68,68,68,68,68,68,68,68,36,9]),0,6)[1],Ef=je(new D([32,132,16,66,102,70,68,68,68,68,
36,73,2]),0,5)[1],Gr=function(e,t){for(var n=e.length,r=new yt(n),i=0;i<n;++i)r[i]=t,t+=1<<e[i];return r},mn=new D(new yt(
[0,0,0,0,16843009,50528770,134678020,202050057,269422093]).buffer,0,36),If=Gr(mn,0),yn=new D(new yt([0,0,0,0,0,0,0,0,16843009,
50528770,117769220,185207048,252579084,16]).buffer,0,53),xf=Gr(yn,3),ze=function(e,t,n){var r=e.length,i=t.length,o=e[r-
1],f=(1<<n.b)-1,s=-n.b;o||C(0);for(var a=0,l=n.b,u=(r<<3)-8+Ie(o)-l,c=-1;u>s&&c<i;){var d=u>>3,_=(e[d]|e[d+1]<<8|e[d+2]<<
16)>>(u&7);a=(a<<l|_)&f,t[++c]=n.s[a],u-=l=n.n[a]}(u!=s||c+1!=i)&&C(0)},Tf=function(e,t,n){var r=6,i=t.length,o=i+3>>2,f=o<<
1,s=o+f;ze(e.subarray(r,r+=e[0]|e[1]<<8),t.subarray(0,o),n),ze(e.subarray(r,r+=e[2]|e[3]<<8),t.subarray(o,f),n),ze(e.subarray(
r,r+=e[4]|e[5]<<8),t.subarray(f,s),n),ze(e.subarray(r),t.subarray(s),n)},bf=function(e,t,n){var r,i=t.b,o=e[i],f=o>>1&3;
t.l=o&1;var s=o>>3|e[i+1]<<5|e[i+2]<<13,a=(i+=3)+s;if(f==1)return i>=e.length?void 0:(t.b=i+1,n?(Ge(n,e[i],t.y,t.y+=s),n):
Ge(new D(s),e[i]));if(!(a>e.length)){if(f==0)return t.b=a,n?(n.set(e.subarray(i,a),t.y),t.y+=s,n):hn(e,i,a);if(f==2){var l=e[i],
u=l&3,c=l>>2&3,d=l>>4,_=0,p=0;u<2?c&1?d|=e[++i]<<4|(c&2&&e[++i]<<12):d=l>>3:(p=c,c<2?(d|=(e[++i]&63)<<4,_=e[i]>>6|e[++i]<<
2):c==2?(d|=e[++i]<<4|(e[++i]&3)<<12,_=e[i]>>2|e[++i]<<6):(d|=e[++i]<<4|(e[++i]&63)<<12,_=e[i]>>6|e[++i]<<2|e[++i]<<10)),
++i;var h=n?n.subarray(t.y,t.y+t.m):new D(t.m),g=h.length-d;if(u==0)h.set(e.subarray(i,i+=d),g);else if(u==1)Ge(h,e[i++],
g);else{var y=t.h;if(u==2){var m=gf(e,i);_+=i-(i=m[0]),t.h=y=m[1]}else y||C(0);(p?Tf:ze)(e.subarray(i,i+=_),h.subarray(g),
y)}var w=e[i++];if(w){w==255?w=(e[i++]|e[i++]<<8)+32512:w>127&&(w=w-128<<8|e[i++]);var x=e[i++];x&3&&C(0);for(var E=[wf,
Ef,Af],A=2;A>-1;--A){var I=x>>(A<<1)+2&3;if(I==1){var b=new D([0,0,e[i++]]);E[A]={s:b.subarray(2,3),n:b.subarray(0,1),t:new mt(
b.buffer,0,1),b:0}}else I==2?(r=je(e,i,9-(A&1)),i=r[0],E[A]=r[1]):I==3&&(t.t||C(0),E[A]=t.t[A])}var L=t.t=E,N=L[0],U=L[1],
O=L[2],R=e[a-1];R||C(0);var B=(a<<3)-8+Ie(R)-O.b,T=B>>3,M=0,S=(e[T]|e[T+1]<<8)>>(B&7)&(1<<O.b)-1;T=(B-=U.b)>>3;var v=(e[T]|
e[T+1]<<8)>>(B&7)&(1<<U.b)-1;T=(B-=N.b)>>3;var V=(e[T]|e[T+1]<<8)>>(B&7)&(1<<N.b)-1;for(++w;--w;){var k=O.s[S],z=O.n[S],
Q=N.s[V],ue=N.n[V],de=U.s[v],W=U.n[v];T=(B-=de)>>3;var ee=1<<de,P=ee+((e[T]|e[T+1]<<8|e[T+2]<<16|e[T+3]<<24)>>>(B&7)&ee-
1);T=(B-=yn[Q])>>3;var q=xf[Q]+((e[T]|e[T+1]<<8|e[T+2]<<16)>>(B&7)&(1<<yn[Q])-1);T=(B-=mn[k])>>3;var Z=If[k]+((e[T]|e[T+
1]<<8|e[T+2]<<16)>>(B&7)&(1<<mn[k])-1);if(T=(B-=z)>>3,S=O.t[S]+((e[T]|e[T+1]<<8)>>(B&7)&(1<<z)-1),T=(B-=ue)>>3,V=N.t[V]+
((e[T]|e[T+1]<<8)>>(B&7)&(1<<ue)-1),T=(B-=W)>>3,v=U.t[v]+((e[T]|e[T+1]<<8)>>(B&7)&(1<<W)-1),P>3)t.o[2]=t.o[1],t.o[1]=t.o[0],
t.o[0]=P-=3;else{var H=P-(Z!=0);H?(P=H==3?t.o[0]-1:t.o[H],H>1&&(t.o[2]=t.o[1]),t.o[1]=t.o[0],t.o[0]=P):P=t.o[0]}for(var A=0;A<
Z;++A)h[M+A]=h[g+A];M+=Z,g+=Z;var X=M-P;if(X<0){var te=-X,Le=t.e+X;te>q&&(te=q);for(var A=0;A<te;++A)h[M+A]=t.w[Le+A];M+=
te,q-=te,X=0}for(var A=0;A<q;++A)h[M+A]=h[X+A];M+=q}if(M!=g)for(;g<h.length;)h[M++]=h[g++];else M=h.length;n?t.y+=M:h=hn(
h,0,M)}else if(n){if(t.y+=d,g)for(var A=0;A<d;++A)h[A]=h[g+A]}else g&&(h=hn(h,g));return t.b=a,h}C(2)}},Bf=function(e,t){
if(e.length==1)return e[0];for(var n=new D(t),r=0,i=0;r<e.length;++r){var o=e[r];n.set(o,i),i+=o.length}return n};function jr(e,t){
for(var n=[],r=+!t,i=0,o=0;e.length;){var f=yf(e,r||t);if(typeof f=="object"){for(r?(t=null,f.w.length==f.u&&(n.push(t=f.
w),o+=f.u)):(n.push(t),f.e=0);!f.l;){var s=bf(e,f,t);s||C(5),t?f.e=f.y:(n.push(s),o+=s.length,_f(f.w,0,s.length),f.w.set(
s,f.w.length-s.length))}i=f.b+f.c*4}else i=f;e=e.subarray(i)}return Bf(n,o)}var F=class{constructor(t=1024){this.buffer=new ArrayBuffer(t),this.view=new DataView(this.buffer),this.offset=0,this.index=
0}ensure(t){if(this.index+t>this.buffer.byteLength){let n=Math.max(this.buffer.byteLength*2,this.index+t),r=new ArrayBuffer(
n);new Uint8Array(r).set(new Uint8Array(this.buffer)),this.buffer=r,this.view=new DataView(this.buffer)}}finish(){}getBuffer(){
return this.buffer.slice(0,this.index)}getBytes(){return new Uint8Array(this.buffer,0,this.index)}appendUint8(t){this.ensure(
1),this.view.setUint8(this.index,t),this.offset++,this.index++}appendUint32(t){this.ensure(4),this.view.setUint32(this.index,
t,!0),this.offset+=4,this.index+=4}appendInt32(t){this.ensure(4),this.view.setInt32(this.index,t,!0),this.offset+=4,this.
index+=4}appendInt64(t){this.ensure(8),this.view.setBigInt64(this.index,BigInt(t),!0),this.offset+=8,this.index+=8}appendFloat32(t){
this.ensure(4),this.view.setFloat32(this.index,t,!0),this.offset+=4,this.index+=4}appendFloat64(t){this.ensure(8),this.view.
setFloat64(this.index,t,!0),this.offset+=8,this.index+=8}appendBuffer(t){this.appendBytes(new Uint8Array(t))}appendBytes(t){
this.ensure(t.length),new Uint8Array(this.buffer,this.index,t.length).set(t),this.offset+=t.length,this.index+=t.length}appendVarInt(t){
for(;;)if((t&-128)===0){this.appendUint8(t);return}else this.appendUint8(t&127|128),t>>>=7}appendVarBigInt(t){for(;;)if((t&
~0x7fn)===0n){this.appendUint8(Number(t));return}else this.appendUint8(Number(t&0x7fn|0x80n)),t>>=7n}appendZigZag(t){typeof t==
"number"?this.appendVarInt(t<<1^t>>31):this.appendVarBigInt(t<<1n^t>>63n)}};var $=0xffffffffffffffffn,xe=0x9e3779b185ebca87n,Ke=0xc2b2ae3d27d4eb4fn,Kr=0x165667b19e3779f9n,Wr=0x85ebca77c2b2ae63n,Hr=0x27d4eb2f165667c5n;
function he(e,t){return(e<<t|e>>64n-t)&$}function De(e,t){return e=e+t*Ke&$,e=he(e,31n),e*xe&$}function gt(e,t){return e^=
De(0n,t),e*xe+Wr&$}function ae(e,t=0n){let n=new DataView(e.buffer,e.byteOffset,e.byteLength),r=e.byteLength,i=0,o;if(r>=
32){let f=t+xe+Ke&$,s=t+Ke&$,a=t,l=t-xe&$;for(;i+32<=r;)f=De(f,n.getBigUint64(i,!0)),i+=8,s=De(s,n.getBigUint64(i,!0)),i+=
8,a=De(a,n.getBigUint64(i,!0)),i+=8,l=De(l,n.getBigUint64(i,!0)),i+=8;o=he(f,1n)+he(s,7n)+he(a,12n)+he(l,18n)&$,o=gt(o,f),
o=gt(o,s),o=gt(o,a),o=gt(o,l)}else o=t+Hr&$;for(o=o+BigInt(r)&$;i+8<=r;)o^=De(0n,n.getBigUint64(i,!0)),o=he(o,27n)*xe+Wr&
$,i+=8;for(i+4<=r&&(o^=BigInt(n.getUint32(i,!0))*xe&$,o=he(o,23n)*Ke+Kr&$,i+=4);i<r;)o^=BigInt(n.getUint8(i))*Hr&$,o=he(
o,11n)*xe&$,i+=1;return o^=o>>33n,o=o*Ke&$,o^=o>>29n,o=o*Kr&$,o^=o>>32n,o}var Lf=new TextEncoder,mc=new Uint32Array([1203114875,1150766481,2284105051,2729912477,1884591559,770785867,2667333959,1550580529]);function Zr(e,t){if(e==null)return;let{type:n,converted_type:r,logical_type:i}=t;if(n==="BOOLEAN")return typeof e!="bool\
ean"?void 0:ae(new Uint8Array([e?1:0]));if(n==="FLOAT"){if(typeof e!="number")return;let o=new ArrayBuffer(4);return new DataView(
o).setFloat32(0,e,!0),ae(new Uint8Array(o))}if(n==="DOUBLE"){if(typeof e!="number")return;let o=new ArrayBuffer(8);return new DataView(
o).setFloat64(0,e,!0),ae(new Uint8Array(o))}if(n==="INT32"){if(r==="DATE"||r==="DECIMAL"||r==="TIME_MILLIS"||i?.type==="\
DATE"||i?.type==="TIME"||i?.type==="DECIMAL"||typeof e!="number"||!Number.isInteger(e))return;let o=new ArrayBuffer(4);return new DataView(
o).setInt32(0,e|0,!0),ae(new Uint8Array(o))}if(n==="INT64"){if(r==="TIMESTAMP_MILLIS"||r==="TIMESTAMP_MICROS"||r==="TIME\
_MICROS"||r==="DECIMAL"||i?.type==="TIMESTAMP"||i?.type==="TIME"||i?.type==="DECIMAL")return;let o;if(typeof e=="bigint")
o=e;else if(typeof e=="number"&&Number.isSafeInteger(e))o=BigInt(e);else return;let f=new ArrayBuffer(8);return new DataView(
f).setBigUint64(0,BigInt.asUintN(64,o),!0),ae(new Uint8Array(f))}if(n==="BYTE_ARRAY")return r==="JSON"||r==="BSON"||r===
"DECIMAL"||i?.type==="JSON"||i?.type==="BSON"||i?.type==="VARIANT"||i?.type==="GEOMETRY"||i?.type==="GEOGRAPHY"?void 0:typeof e==
"string"?ae(Lf.encode(e)):e instanceof Uint8Array?ae(e):void 0;if(n==="FIXED_LEN_BYTE_ARRAY")return r==="DECIMAL"||r==="\
INTERVAL"||i?.type==="DECIMAL"||i?.type==="UUID"||i?.type==="FLOAT16"||i?.type==="GEOMETRY"||i?.type==="GEOGRAPHY"?void 0:
e instanceof Uint8Array?ae(e):void 0}var He=class{constructor(t){this.fields=t}};function ce(e,t){gn(e,12,t)}function gn(e,t,n){if(t!==1&&t!==2)if(t===3&&typeof n==
"number")e.appendUint8(n);else if(t===5&&typeof n=="number")e.appendZigZag(n);else if(t===6&&typeof n=="bigint")e.appendZigZag(
n);else if(t===7&&typeof n=="number")e.appendFloat64(n);else if(t===8&&typeof n=="string"){let r=new TextEncoder().encode(
n);e.appendVarInt(r.length),e.appendBytes(r)}else if(t===8&&n instanceof Uint8Array)e.appendVarInt(n.byteLength),e.appendBytes(
n);else if(t===9&&Array.isArray(n)){let r=Rf(n);if(n.length>14?(e.appendUint8(240|r),e.appendVarInt(n.length)):e.appendUint8(
n.length<<4|r),r===2)for(let i of n)e.appendUint8(i?1:0);else for(let i of n)gn(e,r,i)}else if(t===12&&n instanceof He){
let r=0;for(let[i,o,f]of n.fields)f!==void 0&&(r=Xr(e,r,i,o,f));e.appendUint8(0)}else if(t===12&&typeof n=="object"){let r=0;
for(let[i,o]of Object.entries(n)){if(o===void 0)continue;let f=parseInt(i.replace(/^field_/,""),10);if(Number.isNaN(f))throw new Error(
`thrift invalid field name: ${i}. Expected "field_###"`);let s=Jr(o);r=Xr(e,r,f,s,o)}e.appendUint8(0)}else throw new Error(
`thrift invalid type ${t} for value ${n}`)}function Xr(e,t,n,r,i){let o=n-t;if(o<=0)throw new Error(`thrift non-monotoni\
c field id: fid=${n}, lastFid=${t}`);return o>15?(e.appendUint8(r),e.appendZigZag(n)):e.appendUint8(o<<4|r),gn(e,r,i),n}
function Jr(e){if(e===!0)return 1;if(e===!1)return 2;if(Number.isInteger(e))return 5;if(typeof e=="number")return 7;if(typeof e==
"bigint")return 6;if(typeof e=="string"||e instanceof Uint8Array)return 8;if(Array.isArray(e))return 9;if(e&&typeof e=="\
object")return 12;throw new Error(`Cannot determine thrift compact type for: ${e}`)}function Rf(e){let t=0;for(let n of e){
let r=Jr(n);if(r===1&&(r=2),t||(t=r),t===7&&r===5&&(r=7),t===5&&r===7&&(t=7),r!==t)throw new Error(`thrift invalid type \
for list element: ${n} (expected type ${t})`)}return t??3}var Nf=new Uint32Array([1203114875,1150766481,2284105051,2729912477,1884591559,770785867,2667333959,1550580529]),ei=32,Qr=128*
1024*1024;function Uf(e,t){return Number((e>>32n)*BigInt(t)>>32n)}function Of(e){let t=new Uint32Array(8),n=Number(e&0xffffffffn)|
0;for(let r=0;r<8;r++)t[r]=1<<(Math.imul(n,Nf[r])>>>27);return t}function Sf(e,t){let n=Uf(t,e.length>>3)<<3,r=Of(t);for(let i=0;i<
8;i++)e[n+i]|=r[i]}function Mf(e){let t=1;for(;t<e;)t<<=1;return t}function Pf(e,t){if(!(t>0&&t<1))throw new Error(`bloom filter fpp must b\
e in (0, 1), got ${t}`);if(!(e>=0))throw new Error(`bloom filter ndv must be >= 0, got ${e}`);let n=-8*e/Math.log(1-t**(1/
8)),r=Math.ceil(n/8);return r<=Qr?Mf(Math.max(r,ei)):Qr}var At=class{constructor(t,{fpp:n=.01,maxBytes:r=1024*1024}={}){this.element=t,this.fpp=n,this.maxBytes=r,this.hashes=new Set,
this.skipped=0}insert(t){if(t==null)return;let n=Zr(t,this.element);if(n===void 0){this.skipped++;return}this.hashes.add(
n)}finalize(){if(this.skipped>0||this.hashes.size===0)return;let t=Pf(this.hashes.size,this.fpp);for(;t>this.maxBytes&&t>
ei;)t>>=1;if(t>this.maxBytes)return;let n=new Uint32Array(t>>2);for(let r of this.hashes)Sf(n,r);return n}};function Df(e,t){
if(t.length%8!==0)throw new Error(`bloom filter block count must be a multiple of 8 uint32 words, got ${t.length}`);ce(e,
{field_1:t.byteLength,field_2:{field_1:{}},field_3:{field_1:{}},field_4:{field_1:{}}});for(let n=0;n<t.length;n++)e.appendUint32(
t[n])}function ti(e,t){for(let{chunk:n,bloomFilter:r}of t){if(!r||!n.meta_data)continue;let i=e.offset;Df(e,r),n.meta_data.
bloom_filter_offset=BigInt(i),n.meta_data.bloom_filter_length=e.offset-i}}var An=["BOOLEAN","INT32","INT64","INT96","FLOAT","DOUBLE","BYTE_ARRAY","FIXED_LEN_BYTE_ARRAY"],le=["PLAIN","GROUP_VAR_I\
NT","PLAIN_DICTIONARY","RLE","BIT_PACKED","DELTA_BINARY_PACKED","DELTA_LENGTH_BYTE_ARRAY","DELTA_BYTE_ARRAY","RLE_DICTIO\
NARY","BYTE_STREAM_SPLIT"],ni=["REQUIRED","OPTIONAL","REPEATED"],ri=["UTF8","MAP","MAP_KEY_VALUE","LIST","ENUM","DECIMAL",
"DATE","TIME_MILLIS","TIME_MICROS","TIMESTAMP_MILLIS","TIMESTAMP_MICROS","UINT_8","UINT_16","UINT_32","UINT_64","INT_8",
"INT_16","INT_32","INT_64","JSON","BSON","INTERVAL"],ii=["UNCOMPRESSED","SNAPPY","GZIP","LZO","BROTLI","LZ4","ZSTD","LZ4\
_RAW"],wt=["DATA_PAGE","INDEX_PAGE","DICTIONARY_PAGE","DATA_PAGE_V2"],oi=["UNORDERED","ASCENDING","DESCENDING"],fi=["SPH\
ERICAL","VINCENTY","THOMAS","ANDOYER","KARNEY"];function Te(e,t,n){if(t.length===0){e.appendVarInt(128),e.appendVarInt(4),e.appendVarInt(0),e.appendVarInt(0);return}if(typeof t[0]!=
"number"&&typeof t[0]!="bigint")throw new Error("deltaBinaryPack only supports number or bigint arrays");Cf(t)?Ff(e,t,n===
"INT32"):vf(e,t,n==="INT32"?32:64)}function Cf(e){if(e instanceof Int32Array)return!0;for(let t=0;t<e.length;t++){let n=e[t];
if(typeof n!="number"||n!==(n|0))return!1}return!0}function Ff(e,t,n){let r=t.length;e.appendVarInt(128),e.appendVarInt(
4),e.appendVarInt(r),wn(e,t[0]);let i=[],o=new Float64Array(128),f=new Uint8Array(4),s=1;for(;s<r;){let a=Math.min(s+128,
r),l=a-s,u=n?t[s]-t[s-1]|0:t[s]-t[s-1],c=t[s],d=s+1;for(;d<a;){let p=t[d];if((n?p-c|0:p-c)!==u)break;c=p,d++}if(d===a){wn(
e,u),e.appendUint32(0),s=a;continue}let _=u;o[0]=_;for(let p=1;p<l;p++){let h=n?t[s+p]-t[s+p-1]|0:t[s+p]-t[s+p-1];o[p]=h,
h<_&&(_=h)}wn(e,_);for(let p=0;p<4;p++){let h=p*32,g=Math.min(h+32,l),y=0;for(let m=h;m<g;m++){let w=o[m]-_;w>y&&(y=w)}f[p]=
Yf(y)}e.appendBytes(f);for(let p=0;p<4;p++){let h=f[p];if(h===0)continue;let g=p*32,y=Math.min(g+32,l),m=i[h]??=new Uint8Array(
h*4),w=0,x=0,E=0;if(h<=25)for(let A=0;A<32;A++){let I=g+A<y?o[g+A]-_:0;for(x|=I<<E,E+=h;E>=8;)m[w++]=x&255,x>>>=8,E-=8}else
for(let A=0;A<32;A++){let I=g+A<y?o[g+A]-_:0;for(x+=I*2**E,E+=h;E>=8;)m[w++]=x%256,x=Math.floor(x/256),E-=8}e.appendBytes(
m)}s=a}}function vf(e,t,n){let r=t.length;e.appendVarInt(128),e.appendVarInt(4),e.appendVarInt(r),e.appendZigZag(BigInt.
asIntN(n,BigInt(t[0])));let i=new BigInt64Array(128),o=new Uint8Array(4),f=1;for(;f<r;){let s=Math.min(f+128,r),a=s-f,l=0n;
for(let u=0;u<a;u++){i[u]=BigInt(t[f+u])-BigInt(t[f+u-1]),n===32&&(i[u]=BigInt.asIntN(32,i[u]));let c=i[u];(u===0||c<l)&&
(l=c)}e.appendZigZag(l);for(let u=0;u<4;u++){let c=u*32,d=Math.min(c+32,a),_=0n;for(let p=c;p<d;p++){let h=i[p]-l;h>_&&(_=
h)}o[u]=$f(_)}e.appendBytes(o);for(let u=0;u<4;u++){let c=o[u];if(c===0)continue;let d=u*32,_=Math.min(d+32,a),p=0n,h=0;
for(let g=0;g<32;g++){let y=d+g<_?i[d+g]-l:0n;for(p|=y<<BigInt(h),h+=c;h>=8;)e.appendUint8(Number(p&0xffn)),p>>=8n,h-=8}}
f=s}}function wn(e,t){let n=t<0?-t*2-1:t*2;for(;n>=128;)e.appendUint8(n%128+128),n=Math.floor(n/128);e.appendUint8(n)}function Yf(e){
return e===0?0:e>4294967295?33:32-Math.clz32(e)}function si(e,t){let n=new Int32Array(t.length);for(let r=0;r<t.length;r++){
let i=t[r];if(!(i instanceof Uint8Array))throw new Error("deltaLengthByteArray expects Uint8Array values");n[r]=i.length}
Te(e,n,"INT32");for(let r of t)e.appendBytes(r)}function ai(e,t){if(t.length===0){Te(e,[],"INT32"),Te(e,[],"INT32");return}
let n=new Int32Array(t.length),r=new Int32Array(t.length),i=t[0];if(!(i instanceof Uint8Array))throw new Error("deltaByt\
eArray expects Uint8Array values");n[0]=0,r[0]=i.length;for(let o=1;o<t.length;o++){let f=t[o-1],s=t[o],a;if(s===f)a=s.length;else{
if(!(s instanceof Uint8Array))throw new Error("deltaByteArray expects Uint8Array values");a=0;let l=Math.min(f.length,s.
length);for(;a<l&&f[a]===s[a];)a++}n[o]=a,r[o]=s.length-a}Te(e,n,"INT32"),Te(e,r,"INT32");for(let o=0;o<t.length;o++)r[o]>
0&&e.appendBytes(t[o].subarray(n[o]))}function $f(e){if(e===0n)return 0;let t=0;for(;e>0n;)t++,e>>=1n;return t}function We(e,t,n){let r=e.offset,i=0,o=0,f=0;for(;f<t.length;){let s=1,a=t[f];for(;f+s<t.length&&t[f+s]===a;)s++;s>=8?(i&&
(ci(e,t,o,i,n),i=0),qf(e,a,s,n),f+=s):(i===0&&(o=f),i++,f+=8)}return i&&ci(e,t,o,i,n),e.offset-r}function qf(e,t,n,r){e.
appendVarInt(n<<1);let i=r+7>>3;for(let o=0;o<i;o++)e.appendUint8(t>>(o<<3)&255)}function ci(e,t,n,r,i){if(e.appendVarInt(
r<<1|1),i===0)return;let o=(1<<i)-1,f=0,s=0,a=r*8;for(let l=0;l<a;l++){let u=n+l,c=u<t.length?t[u]&o:0;for(f|=c<<s,s+=i;s>=
8;)e.appendUint8(f&255),f>>>=8,s-=8}s>0&&e.appendUint8(f&255)}function Et(e,t,n,r){if(n==="BOOLEAN")kf(e,t);else if(n==="INT32")Vf(e,t);else if(n==="INT64")zf(e,t);else if(n==="FLOAT")
Gf(e,t);else if(n==="DOUBLE")jf(e,t);else if(n==="BYTE_ARRAY")Kf(e,t);else if(n==="FIXED_LEN_BYTE_ARRAY"){if(!r)throw new Error(
"parquet FIXED_LEN_BYTE_ARRAY expected type_length");Hf(e,t,r)}else throw new Error(`parquet unsupported type: ${n}`)}function kf(e,t){
let n=0;for(let r=0;r<t.length;r++){let i=t[r];if(typeof i!="boolean")throw new Error("parquet expected boolean value, g\
ot "+i);let o=r%8;i&&(n|=1<<o),o===7&&(e.appendUint8(n),n=0)}t.length%8&&e.appendUint8(n)}function Vf(e,t){for(let n of t){
if(!Number.isSafeInteger(n))throw new Error("parquet expected integer value, got "+n);if(n<-2147483648||n>2147483647)throw new Error(
"parquet expected int32 value, got "+n);e.appendInt32(n)}}function zf(e,t){for(let n of t){if(typeof n!="bigint")throw new Error(
"parquet expected bigint value, got "+n);e.appendInt64(n)}}function Gf(e,t){for(let n of t){if(typeof n!="number")throw new Error(
"parquet expected number value, got "+n);e.appendFloat32(n)}}function jf(e,t){for(let n of t){if(typeof n!="number")throw new Error(
"parquet expected number value, got "+n);e.appendFloat64(n)}}function Kf(e,t){for(let n of t){let r=n;if(typeof r=="stri\
ng"&&(r=new TextEncoder().encode(n)),!(r instanceof Uint8Array))throw new Error("parquet expected Uint8Array value, got "+
typeof r);e.appendUint32(r.length),e.appendBytes(r)}}function Hf(e,t,n){for(let r of t){if(!(r instanceof Uint8Array))throw new Error(
"parquet expected Uint8Array value, got "+typeof r);if(r.length!==n)throw new Error(`parquet expected Uint8Array of leng\
th ${n}`);e.appendBytes(r)}}function li(e,t,n){let r=e[t],i=[],o=1;if(r.num_children)for(;i.length<r.num_children;){let f=e[t+o],s=li(e,t+o,[...n,f.
name]);o+=s.count,i.push(s)}return{count:o,element:r,children:i,path:n}}function ui(e,t){return Wf(li(e,0,[]),t)}function Wf(e,t){
let n=[e];for(let r of t){let i=e.children.find(o=>o.element.name===r);if(!i)throw new Error(`parquet schema element not\
 found: ${t}`);n.push(i),e=i}return n}function di(e){let t=0;for(let{element:n}of e.slice(1))n.repetition_type!=="REQUIRED"&&t++;return t}function En(e){if(!e||
e.element.converted_type!=="LIST"||e.children.length>1)return!1;let t=e.children[0];return!(t.children.length>1||t.element.
repetition_type!=="REPEATED")}function It(e){if(!e||e.element.converted_type!=="MAP"||e.children.length>1)return!1;let t=e.
children[0];return!(t.children.length!==2||t.element.repetition_type!=="REPEATED"||t.children.find(i=>i.element.name==="\
key")?.element.repetition_type==="REPEATED"||t.children.find(i=>i.element.name==="value")?.element.repetition_type==="RE\
PEATED")}var Rc=1<<19,Nc=new TextDecoder;function In({schema:e}){return ui(e,[])[0]}function Ze(e){if(e===void 0)return null;if(typeof e=="bigint")return Number(e);if(Object.is(e,-0))return 0;if(Array.isArray(
e))return e.map(Ze);if(e instanceof Uint8Array)return Array.from(e);if(e instanceof Date)return e.toISOString();if(e instanceof
Object){let t={};for(let n of Object.keys(e))e[n]!==void 0&&(t[n]=Ze(e[n]));return t}return e}var hi=new TextEncoder,mi=-(2n**63n),yi=2n**63n-1n,Zf=new Uint8Array([0]),Xf=new Set(["value","typed_value"]),Jf=new Map,
Qf=Bn([]);function gi(e,t,n){if(n?.required){for(let a=0;a<e.length;a++)if(e[a]===void 0)throw new Error(`required varia\
nt column ${n.name} has undefined value at index ${a}`)}let r=[],i=t&&me(t);if(i){let a=new Map;return e.map(l=>{if(l===
void 0)return null;let u=new Set;xt(l,u);let{metadata:c,keyIndex:d}=es(u,a);return{metadata:c,...xn(l,i,d,!0,r)}})}let o=is(
e),f=Bn(o),s=new Map;for(let a=0;a<o.length;a++)s.set(o[a],a);return e.map(a=>a===void 0?null:{metadata:f,value:be(a,s,r)})}
function xn(e,t,n,r,i){if(e==null)return{value:Zf,typed_value:null};if(Array.isArray(t)){if(!Array.isArray(e))return{value:be(
e,n,i),typed_value:null};let o=t[0];return{value:null,typed_value:e.map(f=>xn(f,o,n,!1,i))}}if(typeof t=="object"){if(typeof e!=
"object"||Array.isArray(e)||e instanceof Date||e instanceof Uint8Array)return{value:be(e,n,i),typed_value:null};let o={},
f=!1;for(let c of Object.keys(e))c in t||e[c]===void 0||(o[c]=e[c],f=!0);if(f&&!r)return{value:be(e,n,i),typed_value:null};
let s=Object.keys(t);if(s.some(c=>(!Object.prototype.hasOwnProperty.call(e,c)||e[c]===void 0)&&n.has(c)))return{value:be(
e,n,i),typed_value:null};let l={};for(let c of s)!Object.prototype.hasOwnProperty.call(e,c)||e[c]===void 0||(l[c]=xn(e[c],
t[c],n,!1,i));return{value:f?be(o,n,i):null,typed_value:l}}return ts(e,t)?{value:null,typed_value:e}:{value:be(e,n,i),typed_value:null}}
function es(e,t){if(e.size===0)return{metadata:Qf,keyIndex:Jf};let n=[...e].sort(),r=n.join("\0"),i=t.get(r);if(i)return i;
let o=Bn(n),f=new Map;for(let a=0;a<n.length;a++)f.set(n[a],a);let s={metadata:o,keyIndex:f};return t.set(r,s),s}function ts(e,t){
if(e==null)return!1;switch(t){case"BOOLEAN":return typeof e=="boolean";case"INT32":return typeof e=="number"&&Number.isInteger(
e)&&e>=-2147483648&&e<=2147483647;case"INT64":return typeof e=="bigint"&&e>=mi&&e<=yi;case"FLOAT":return typeof e=="numb\
er";case"DOUBLE":return typeof e=="number";case"STRING":return typeof e=="string";case"TIMESTAMP":return e instanceof Date;default:
return!1}}var pi=3,ns=256;function Ai(e){let t=bn(e,0);if(t===void 0||typeof t!="object")return;let n=me(t);if(!(n===void 0||
Tn(n)>ns))return n}function Tn(e){if(Array.isArray(e))return e.length?Tn(e[0]):0;if(e&&typeof e=="object"){let t=0;for(let n of Object.
keys(e))t+=Tn(e[n]);return t}return 1}function bn(e,t){let n=[];for(let i of e)i!=null&&n.push(i);if(!n.length)return;if(n.
some(_i)){if(t>=pi)return;let i=new Map;for(let f of n)if(_i(f))for(let[s,a]of Object.entries(f)){if(a===void 0)continue;
let l=i.get(s);l?l.push(a):i.set(s,[a])}let o={};for(let[f,s]of i){let a=bn(s,t+1);a!==void 0&&(o[f]=a)}return Object.keys(
o).length>0?o:void 0}if(n.every(Array.isArray)){if(t>=pi)return;let i=[];for(let f of n)for(let s of f)i.push(s);let o=bn(
i,t+1);return o===void 0?void 0:[o]}let r;for(let i of n){if(Array.isArray(i))return;let o=i instanceof Date?"date":typeof i;
if(r===void 0)r=o;else if(r!==o)return}return r?rs(r):void 0}function _i(e){return typeof e=="object"&&e!==null&&!Array.
isArray(e)&&!(e instanceof Date)&&!(e instanceof Uint8Array)}function me(e){if(Array.isArray(e)){let t=e.length?me(e[0]):
void 0;return t===void 0?void 0:[t]}if(typeof e=="object"){let t={};for(let[n,r]of Object.entries(e)){if(Xf.has(n))continue;
let i=me(r);i!==void 0&&(t[n]=i)}return Object.keys(t).length>0?t:void 0}return e}function rs(e){switch(e){case"boolean":
return"BOOLEAN";case"string":return"STRING";case"number":return"DOUBLE";case"bigint":return"INT64";case"date":return"TIM\
ESTAMP";default:return}}function is(e){let t=new Set;return xt(e,t),[...t].sort()}function xt(e,t){if(e!=null){if(Array.
isArray(e)){for(let n of e)xt(n,t);return}if(!(e instanceof Date||e instanceof Uint8Array)&&typeof e=="object")for(let n of Object.
keys(e))t.add(n),xt(e[n],t)}}function Bn(e){let t=e.length,n=new Array(t),r=0;for(let u=0;u<t;u++){let c=hi.encode(e[u]);
n[u]=c,r+=c.length}let i=Tt(r),o=17|i-1<<6,f=1+i+(t+1)*i+r,s=new Uint8Array(f),a=0;s[a++]=o;for(let u=0;u<i;u++)s[a++]=t>>
u*8&255;let l=0;for(let u=0;u<t;u++){for(let c=0;c<i;c++)s[a++]=l>>c*8&255;l+=n[u].length}for(let u=0;u<i;u++)s[a++]=l>>
u*8&255;for(let u=0;u<t;u++)s.set(n[u],a),a+=n[u].length;return s}function be(e,t,n){let r=new F(8);return Ln(e,r,t,n),r.
getBytes()}function Ln(e,t,n,r){if(e==null){t.appendUint8(0);return}if(e===!0){t.appendUint8(4);return}if(e===!1){t.appendUint8(
8);return}if(typeof e=="bigint"){if(e<mi||e>yi)throw new RangeError(`variant bigint out of int64 range: ${e}`);t.appendUint8(
24),t.appendInt64(e);return}if(typeof e=="number"){if(Number.isInteger(e)){if(e>=-128&&e<=127){t.appendUint8(12),t.appendUint8(
e&255);return}if(e>=-32768&&e<=32767){t.appendUint8(16),bt(t,e,2);return}if(e>=-2147483648&&e<=2147483647){t.appendUint8(
20),t.appendInt32(e);return}}t.appendUint8(28),t.appendFloat64(e);return}if(typeof e=="string"){let i=hi.encode(e);i.length<=
63?(t.appendUint8(i.length<<2|1),t.appendBytes(i)):(t.appendUint8(64),t.appendUint32(i.length),t.appendBytes(i));return}
if(e instanceof Date){t.appendUint8(52),t.appendInt64(BigInt(e.getTime())*1000n);return}if(e instanceof Uint8Array){t.appendUint8(
60),t.appendUint32(e.length),t.appendBytes(e);return}if(Array.isArray(e)){fs(e,t,n,r);return}if(typeof e=="object"){os(e,
t,n,r);return}throw new Error(`variant cannot encode value: ${e}`)}function os(e,t,n,r){let i=Object.keys(e).filter(d=>e[d]!==
void 0).map(d=>{let _=n.get(d);if(_===void 0)throw new Error(`variant key not in dictionary: ${d}`);return{id:_,key:d}});
i.sort((d,_)=>d.id-_.id);let o=i.length,f=o>0?i[o-1].id:0,s=Tt(f),a=r.pop()??new F(8),l=new Array(o+1);l[0]=0;for(let d=0;d<
o;d++)Ln(e[i[d].key],a,n,r),l[d+1]=a.index;let u=Tt(l[o]),c=o>255?1:0;t.appendUint8((u-1|s-1<<2|c<<4)<<2|2),c?t.appendUint32(
o):t.appendUint8(o);for(let{id:d}of i)bt(t,d,s);for(let d of l)bt(t,d,u);t.appendBytes(a.getBytes()),a.index=0,a.offset=
0,r.push(a)}function fs(e,t,n,r){let i=e.length,o=r.pop()??new F(8),f=new Array(i+1);f[0]=0;for(let l=0;l<i;l++)Ln(e[l],
o,n,r),f[l+1]=o.index;let s=Tt(f[i]),a=i>255?1:0;t.appendUint8((s-1|a<<2)<<2|3),a?t.appendUint32(i):t.appendUint8(i);for(let l of f)
bt(t,l,s);t.appendBytes(o.getBytes()),o.index=0,o.offset=0,r.push(o)}function Tt(e){return e<=255?1:e<=65535?2:e<=16777215?
3:4}function bt(e,t,n){for(let r=0;r<n;r++)e.appendUint8(t>>r*8&255)}function wi({columnData:e,schemaOverrides:t}){let n=[{name:"root",num_children:e.length}];for(let{name:r,data:i,type:o,nullable:f,
shredding:s}of e)if(t?.[r]){let a=t[r];if(o||f!==void 0)throw new Error(`cannot provide both type and schema override fo\
r column ${r}`);if(a.name!==r)throw new Error(`schema override for column ${r} must have matching name, got ${a.name}`);
if(a.type==="FIXED_LEN_BYTE_ARRAY"&&!a.type_length)throw new Error("schema override for FIXED_LEN_BYTE_ARRAY must includ\
e type_length");if(a.num_children)throw new Error("schema override does not support nested types");n.push(a)}else if(o===
"VARIANT"){let a=f===!1?"REQUIRED":"OPTIONAL",l=s&&s!==!0?me(s):void 0;l?n.push({name:r,repetition_type:a,num_children:3,
logical_type:{type:"VARIANT"}},{name:"metadata",type:"BYTE_ARRAY",repetition_type:"REQUIRED"},{name:"value",type:"BYTE_A\
RRAY",repetition_type:"OPTIONAL"},...Rn(l)):n.push({name:r,repetition_type:a,num_children:2,logical_type:{type:"VARIANT"}},
{name:"metadata",type:"BYTE_ARRAY",repetition_type:"REQUIRED"},{name:"value",type:"BYTE_ARRAY",repetition_type:"OPTIONAL"})}else
o?n.push(as(r,o,f)):n.push(cs(r,i.slice(0,1e3)));return n}function Rn(e){if(Array.isArray(e))return[{name:"typed_value",
repetition_type:"OPTIONAL",converted_type:"LIST",num_children:1},{name:"list",repetition_type:"REPEATED",num_children:1},
{name:"element",repetition_type:"REQUIRED",num_children:2},{name:"value",type:"BYTE_ARRAY",repetition_type:"OPTIONAL"},...Rn(
e[0])];if(typeof e=="object"){let t=Object.keys(e),n=[{name:"typed_value",repetition_type:"OPTIONAL",num_children:t.length}];
for(let r of t)n.push({name:r,repetition_type:"OPTIONAL",num_children:2},{name:"value",type:"BYTE_ARRAY",repetition_type:"\
OPTIONAL"},...Rn(e[r]));return n}return[ss(e)]}function ss(e){switch(e){case"STRING":return{name:"typed_value",type:"BYT\
E_ARRAY",converted_type:"UTF8",repetition_type:"OPTIONAL"};case"INT32":return{name:"typed_value",type:"INT32",repetition_type:"\
OPTIONAL"};case"INT64":return{name:"typed_value",type:"INT64",repetition_type:"OPTIONAL"};case"DOUBLE":return{name:"type\
d_value",type:"DOUBLE",repetition_type:"OPTIONAL"};case"FLOAT":return{name:"typed_value",type:"FLOAT",repetition_type:"O\
PTIONAL"};case"BOOLEAN":return{name:"typed_value",type:"BOOLEAN",repetition_type:"OPTIONAL"};case"TIMESTAMP":return{name:"\
typed_value",type:"INT64",converted_type:"TIMESTAMP_MICROS",repetition_type:"OPTIONAL"};default:throw new Error(`unsuppo\
rted shredded field type: ${e}`)}}function as(e,t,n){let r=n===!1?"REQUIRED":"OPTIONAL";return t==="STRING"?{name:e,type:"\
BYTE_ARRAY",converted_type:"UTF8",repetition_type:r}:t==="JSON"?{name:e,type:"BYTE_ARRAY",converted_type:"JSON",repetition_type:r}:
t==="TIMESTAMP"?{name:e,type:"INT64",converted_type:"TIMESTAMP_MILLIS",repetition_type:r}:t==="UUID"?{name:e,type:"FIXED\
_LEN_BYTE_ARRAY",type_length:16,logical_type:{type:"UUID"},repetition_type:r}:t==="FLOAT16"?{name:e,type:"FIXED_LEN_BYTE\
_ARRAY",type_length:2,logical_type:{type:"FLOAT16"},repetition_type:r}:t==="GEOMETRY"?{name:e,type:"BYTE_ARRAY",logical_type:{
type:"GEOMETRY"},repetition_type:r}:t==="GEOGRAPHY"?{name:e,type:"BYTE_ARRAY",logical_type:{type:"GEOGRAPHY"},repetition_type:r}:
{name:e,type:t,repetition_type:r}}function cs(e,t){let n,r="REQUIRED",i;if(t instanceof Int32Array)return{name:e,type:"I\
NT32",repetition_type:r};if(t instanceof BigInt64Array)return{name:e,type:"INT64",repetition_type:r};if(t instanceof Float32Array)
return{name:e,type:"FLOAT",repetition_type:r};if(t instanceof Float64Array)return{name:e,type:"DOUBLE",repetition_type:r};
for(let o of t)if(o==null)r="OPTIONAL";else{let f,s;if(typeof o=="boolean")f="BOOLEAN";else if(typeof o=="bigint")f="INT\
64";else if(Number.isInteger(o))f="INT32";else if(typeof o=="number")f="DOUBLE";else if(o instanceof Uint8Array)f="BYTE_\
ARRAY";else if(typeof o=="string")f="BYTE_ARRAY",s="UTF8";else if(o instanceof Date)f="INT64",s="TIMESTAMP_MILLIS";else if(typeof o==
"object")f="BYTE_ARRAY",s="JSON";else throw new Error(`cannot determine parquet type for: ${o}`);if(n===void 0)n=f,i=s;else if(n===
"INT32"&&f==="DOUBLE")n="DOUBLE";else{if(n==="DOUBLE"&&f==="INT32")continue;if(n!==f||i!==s)throw new Error(`parquet can\
not write mixed types: ${i??n} and ${s??f}`)}}return n||(n="BYTE_ARRAY",r="OPTIONAL"),{name:e,type:n,repetition_type:r,converted_type:i}}
function Ei(e){let t=0;for(let n of e)n.repetition_type==="REPEATED"&&t++;return t}function Bt(e){let t=In({schema:e}),n=new Map;
return r=>{let i=t,o=[i];for(let f of r){let s=n.get(i);if(!s){s=new Map;for(let l of i.children)s.has(l.element.name)||
s.set(l.element.name,l);n.set(i,s)}let a=s.get(f);if(!a)throw new Error(`parquet schema element not found: ${r}`);o.push(
a),i=a}return o}}function Ii(e,t,n,r){let i=t.length,o,f;if(n==="FLOAT"){let s=t instanceof Float32Array?t:new Float32Array(Nn(t));o=new Uint8Array(
s.buffer,s.byteOffset,s.byteLength),f=4}else if(n==="DOUBLE"){let s=t instanceof Float64Array?t:new Float64Array(Nn(t));
o=new Uint8Array(s.buffer,s.byteOffset,s.byteLength),f=8}else if(n==="INT32"){let s=t instanceof Int32Array?t:new Int32Array(
Nn(t));o=new Uint8Array(s.buffer,s.byteOffset,s.byteLength),f=4}else if(n==="INT64"){let s=ls(t);o=new Uint8Array(s.buffer,
s.byteOffset,s.byteLength),f=8}else if(n==="FIXED_LEN_BYTE_ARRAY"){if(!r)throw new Error("parquet byte_stream_split miss\
ing type_length");f=r,o=new Uint8Array(i*f);for(let s=0;s<i;s++)o.set(t[s],s*f)}else throw new Error(`parquet byte_strea\
m_split unsupported type: ${n}`);for(let s=0;s<f;s++)for(let a=0;a<i;a++)e.appendUint8(o[a*f+s])}function Nn(e){if(Array.
isArray(e)&&e.every(t=>typeof t=="number"))return e;throw new Error("Expected number array for BYTE_STREAM_SPLIT encodin\
g")}function ls(e){if(e instanceof BigInt64Array)return e;if(Array.isArray(e)&&e.every(t=>typeof t=="bigint"))return new BigInt64Array(
e);throw new Error("Expected bigint array for BYTE_STREAM_SPLIT encoding")}function xi({writer:e,column:t,encoding:n,pageData:r}){let{columnName:i,element:o,codec:f,compressors:s}=t,{type:a,type_length:l,
repetition_type:u}=o;if(!a)throw new Error(`column ${i} cannot determine type`);if(u==="REPEATED")throw new Error(`colum\
n ${i} repeated types not supported`);let c=new F,{definition_levels_byte_length:d,repetition_levels_byte_length:_,num_nulls:p,
num_values:h,num_rows:g}=us(c,t,r),y=p?r.values.filter(I=>I!=null):r.values,m=new F;if(n==="PLAIN")Et(m,y,a,l);else if(n===
"RLE"){if(a!=="BOOLEAN")throw new Error("RLE encoding only supported for BOOLEAN type");let I=new F;We(I,y,1),m.appendUint32(
I.offset),m.appendBytes(I.getBytes())}else if(n==="PLAIN_DICTIONARY"||n==="RLE_DICTIONARY"){let I=0;for(let L of y)L>I&&
(I=L);let b=Math.ceil(Math.log2(I+1));m.appendUint8(b),We(m,y,b)}else if(n==="DELTA_BINARY_PACKED"){if(a!=="INT32"&&a!==
"INT64")throw new Error("DELTA_BINARY_PACKED encoding only supported for INT32 and INT64 types");Te(m,y,a)}else if(n==="\
DELTA_LENGTH_BYTE_ARRAY"){if(a!=="BYTE_ARRAY")throw new Error("DELTA_LENGTH_BYTE_ARRAY encoding only supported for BYTE_\
ARRAY type");si(m,y)}else if(n==="DELTA_BYTE_ARRAY"){if(a!=="BYTE_ARRAY")throw new Error("DELTA_BYTE_ARRAY encoding only\
 supported for BYTE_ARRAY type");ai(m,y)}else if(n==="BYTE_STREAM_SPLIT")Ii(m,y,a,l);else throw new Error(`parquet unsup\
ported encoding: ${n}`);let w=m.getBytes(),x=s[f]?.(w)??w,E=e.offset;Un(e,{type:"DATA_PAGE_V2",uncompressed_page_size:c.
offset+m.offset,compressed_page_size:c.offset+x.length,data_page_header_v2:{num_values:h,num_nulls:p,num_rows:g,encoding:n,
definition_levels_byte_length:d,repetition_levels_byte_length:_,is_compressed:!!f}});let A=e.offset-E;return e.appendBytes(
c.getBytes()),e.appendBytes(x),A+c.offset+m.offset}function Un(e,t){let n={field_1:wt.indexOf(t.type),field_2:t.uncompressed_page_size,
field_3:t.compressed_page_size,field_4:t.crc,field_5:t.data_page_header&&{field_1:t.data_page_header.num_values,field_2:le.
indexOf(t.data_page_header.encoding),field_3:le.indexOf(t.data_page_header.definition_level_encoding),field_4:le.indexOf(
t.data_page_header.repetition_level_encoding)},field_7:t.dictionary_page_header&&{field_1:t.dictionary_page_header.num_values,
field_2:le.indexOf(t.dictionary_page_header.encoding)},field_8:t.data_page_header_v2&&{field_1:t.data_page_header_v2.num_values,
field_2:t.data_page_header_v2.num_nulls,field_3:t.data_page_header_v2.num_rows,field_4:le.indexOf(t.data_page_header_v2.
encoding),field_5:t.data_page_header_v2.definition_levels_byte_length,field_6:t.data_page_header_v2.repetition_levels_byte_length,
field_7:t.data_page_header_v2.is_compressed?void 0:!1}};ce(e,n)}function us(e,t,n){let{schemaPath:r}=t,{values:i,definitionLevels:o,
repetitionLevels:f,maxDefinitionLevel:s}=n,a=o.length||i.length,l=0,u=0;if(f.length)for(let p=0;p<f.length;p++)f[p]===0&&
u++;else u=i.length;if(o.length)for(let p=0;p<o.length;p++)o[p]<s&&l++;let c=Ei(r),d=0;if(c){let p=Math.ceil(Math.log2(c+
1));d=We(e,f,p)}let _=0;if(s){let p=Math.ceil(Math.log2(s+1));_=We(e,o,p)}return{definition_levels_byte_length:_,repetition_levels_byte_length:d,
num_values:a,num_nulls:l,num_rows:u}}var ds=new TextEncoder;function Lt(e,t,n){if(e==null)return 0;if(t==="BOOLEAN")return .125;if(t==="INT32"||t==="FLOAT")return 4;
if(t==="INT64"||t==="DOUBLE")return 8;if(t==="INT96")return 12;if(t==="FIXED_LEN_BYTE_ARRAY")return n??0;if(t==="BYTE_AR\
RAY"){if(e instanceof Uint8Array)return e.byteLength;if(typeof e=="string")return e.length}return 0}function Ti(e){let t=2166136261;
for(let n=0;n<e.length;n++)t^=e[n],t=Math.imul(t,16777619);return t>>>0}function ps(e,t){if(e.length!==t.length)return!1;
for(let n=0;n<e.length;n++)if(e[n]!==t[n])return!1;return!0}var _s=.9;function bi(e,t,n,r,i,o){if(r&&r!=="RLE_DICTIONARY")
return{};if(t==="BOOLEAN")return{};let f=r==="RLE_DICTIONARY",s=t==="BYTE_ARRAY"?4:0;if(!f){let E=Math.min(e.length,1e3),
A=new Map,I=new Map,b=0,L=0;for(let N=0;N<E;N++){let U=E===1?0:Math.floor(N*(e.length-1)/(E-1)),O=e[U],R=O;O instanceof Uint8Array&&
(R=I.get(O),R===void 0&&(R=Ti(O),I.set(O,R)));let B=A.get(R);B===void 0&&(B=Lt(O,t,n)+(O==null?0:s),A.set(R,B),b+=B),L+=
B}if(!L||b/L>_s)return{}}let a=[],l=new Array(e.length),u=new Map,c=[],d=new Map,_=0,p=0,h=0,g=0;for(let E=0;E<e.length;E++){
let A=e[E];if(A==null){if(o)throw new Error("parquet required value is undefined");continue}g++;let I;if(A instanceof Uint8Array){
if(h+=A.byteLength,I=u.get(A),I!==void 0){l[E]=I;continue}let b=Ti(A),L=d.get(b);if(L){for(let N of L)if(ps(a[N],A)){I=N;
break}}if(I===void 0){if(_+=A.byteLength,!f&&i&&(p+=A.byteLength,p>i))return{};I=a.length,a.push(A),L?L.push(I):d.set(b,
[I])}u.set(A,I)}else{I=u.get(A);let b=I===void 0?Lt(A,t,n):c[I];if(h+=b,I===void 0){if(_+=b,!f&&i&&(p+=typeof A=="string"?
ds.encode(A).byteLength:b,p>i))return{};I=a.length,a.push(A),c[I]=b,u.set(A,I)}}l[E]=I}let y=Math.ceil(Math.log2(a.length)),
m=Math.ceil(g*y/8),w=h+g*s,x=_+a.length*s;return!f&&2*(x+m)>w?{}:{dictionary:a,indexes:l}}function Bi(e,t,n){let{element:r,
codec:i,compressors:o}=t,{type:f,type_length:s}=r;if(!f)throw new Error(`column ${t.columnName} cannot determine type`);
let a=new F;Et(a,n,f,s);let l=a.getBytes(),u=o[i]?.(l)??l,c=e.offset;Un(e,{type:"DICTIONARY_PAGE",uncompressed_page_size:l.
byteLength,compressed_page_size:u.byteLength,dictionary_page_header:{num_values:n.length,encoding:"PLAIN"}});let d=e.offset-
c;return e.appendBytes(u),d+l.byteLength}function Li(e){let t=new Set,n;for(let a of e)if(a!=null){if(typeof a!="object")throw new Error("geospatial column expec\
ts GeoJSON geometries");n=Ri(n,a),t.add(hs(a))}let r,{xmin:i,ymin:o,xmax:f,ymax:s}=n??{};if(i!==void 0&&o!==void 0&&f!==
void 0&&s!==void 0&&(r={...n,xmin:i,ymin:o,xmax:f,ymax:s}),t.size||r)return{bbox:r,geospatial_types:t.size?Array.from(t).
sort((a,l)=>a-l):[]}}function Ri(e,t){if(t.type==="GeometryCollection"){for(let n of t.geometries||[])e=Ri(e,n);return e}
return Ni(e,t.coordinates)}function Ni(e,t){if(typeof t[0]=="number")return e=Rt(e,"xmin","xmax",t[0]),e=Rt(e,"ymin","ym\
ax",t[1]),t.length>2&&(e=Rt(e,"zmin","zmax",t[2])),t.length>3&&(e=Rt(e,"mmin","mmax",t[3])),e;for(let n of t)e=Ni(e,n);return e}
function Rt(e,t,n,r){if(r===void 0||!Number.isFinite(r))return e;e||(e={});let i=e[t],o=e[n];return(i===void 0||r<i)&&(e[t]=
r),(o===void 0||r>o)&&(e[n]=r),e}function hs(e){let t=ms[e.type];if(t===void 0)throw new Error(`unknown geometry type: ${e.
type}`);let n=Ui(e);if(n===2)return t;if(n===3)return t+1e3;if(n===4)return t+3e3;throw new Error(`unsupported geometry \
dimensions: ${n}`)}var ms={Point:1,LineString:2,Polygon:3,MultiPoint:4,MultiLineString:5,MultiPolygon:6,GeometryCollection:7};
function Ui(e){if(e.type==="GeometryCollection"){let t=0;for(let n of e.geometries||[])t=Math.max(t,Ui(n));return t||2}return Oi(
e.coordinates)}function Oi(e){if(!e.length)return 2;if(typeof e[0]=="number")return e.length;let t=0;for(let n of e)t=Math.
max(t,Oi(n));return t||2}function Mi(e){let t=new F;return Xe(t,e),t.getBytes()}function Xe(e,t){if(typeof t!="object")throw new Error("geometry \
values must be GeoJSON geometries");let n=ys(t.type),r=Di(t),i=0;if(r===3)i=1;else if(r===4)i=3;else if(r>4)throw new Error(
`unsupported geometry dimensions: ${r}`);if(e.appendUint8(1),e.appendUint32(n+i*1e3),t.type==="Point")Pi(e,t.coordinates,
r);else if(t.type==="LineString")Si(e,t.coordinates,r);else if(t.type==="Polygon"){e.appendUint32(t.coordinates.length);
for(let o of t.coordinates)Si(e,o,r)}else if(t.type==="MultiPoint"){e.appendUint32(t.coordinates.length);for(let o of t.
coordinates)Xe(e,{type:"Point",coordinates:o})}else if(t.type==="MultiLineString"){e.appendUint32(t.coordinates.length);
for(let o of t.coordinates)Xe(e,{type:"LineString",coordinates:o})}else if(t.type==="MultiPolygon"){e.appendUint32(t.coordinates.
length);for(let o of t.coordinates)Xe(e,{type:"Polygon",coordinates:o})}else if(t.type==="GeometryCollection"){e.appendUint32(
t.geometries.length);for(let o of t.geometries)Xe(e,o)}else throw new Error("unsupported geometry type")}function Pi(e,t,n){
if(t.length<n)throw new Error("geometry position dimensions mismatch");for(let r=0;r<n;r++)e.appendFloat64(t[r])}function Si(e,t,n){
e.appendUint32(t.length);for(let r of t)Pi(e,r,n)}function ys(e){if(e==="Point")return 1;if(e==="LineString")return 2;if(e===
"Polygon")return 3;if(e==="MultiPoint")return 4;if(e==="MultiLineString")return 5;if(e==="MultiPolygon")return 6;if(e===
"GeometryCollection")return 7;throw new Error(`unknown geometry type: ${e}`)}function Di(e){if(e.type==="GeometryCollect\
ion"){let t=0;for(let n of e.geometries)t=Math.max(t,Di(n));return t||2}return Ci(e.coordinates)}function Ci(e){if(!Array.
isArray(e)||!e.length)return 2;if(typeof e[0]=="number")return e.length;let t=0;for(let n of e)t=Math.max(t,Ci(n));return t||
2}var Yi=864e5;function Fi(e,t){let n=new Map;return Array.from(e,r=>{if(n.has(r))return n.get(r);let i=t(r);return n.set(
r,i),i})}function Je(e,t){let{type:n,converted_type:r,logical_type:i}=e;if(r==="DECIMAL"){let o=10**(e.scale||0);return Array.
from(t,f=>{if(f==null)return f;if(typeof f=="bigint")return On(e,f);if(typeof f!="number")throw new Error("DECIMAL must \
be a number or bigint");return On(e,BigInt(Math.round(f*o)))})}if(r==="DATE")return Array.from(t).map(o=>o instanceof Date?
Math.floor(o.getTime()/Yi):o);if(r==="TIMESTAMP_MILLIS")return Array.from(t).map(o=>o==null?o:o instanceof Date?BigInt(o.
getTime()):BigInt(o));if(r==="TIMESTAMP_MICROS")return Array.from(t).map(o=>o==null?o:o instanceof Date?BigInt(o.getTime()*
1e3):BigInt(o));if(r==="JSON"){if(!Array.isArray(t))throw new Error("JSON must be an array");let o=new TextEncoder;return Fi(
t,f=>f==null?f:o.encode(JSON.stringify(Ze(f))))}if(r==="UTF8"){if(!Array.isArray(t))throw new Error("strings must be an \
array");let o=new TextEncoder;return t.map(f=>typeof f=="string"?o.encode(f):f)}if(r==="UINT_32"||i?.type==="INTEGER"&&i.
bitWidth===32&&!i.isSigned)return t instanceof Uint32Array?t:t instanceof Int32Array?new Uint32Array(t.buffer,t.byteOffset,
t.length):Array.from(t).map(o=>{if(o==null)return o;if(!Number.isSafeInteger(o))throw new Error("expected integer value,\
 got "+o);if(o<0||o>4294967295)throw new Error("expected uint32 value, got "+o);return o>2147483647?o-4294967296:o});if(i?.
type==="FLOAT16"){if(n!=="FIXED_LEN_BYTE_ARRAY")throw new Error("FLOAT16 must be FIXED_LEN_BYTE_ARRAY type");if(e.type_length!==
2)throw new Error("FLOAT16 expected type_length to be 2 bytes");return Array.from(t).map(ji)}if(i?.type==="UUID"){if(!Array.
isArray(t))throw new Error("UUID must be an array");if(n!=="FIXED_LEN_BYTE_ARRAY")throw new Error("UUID must be FIXED_LE\
N_BYTE_ARRAY type");if(e.type_length!==16)throw new Error("UUID expected type_length to be 16 bytes");return t.map($i)}if(i?.
type==="TIMESTAMP")return Array.from(t).map(o=>{if(o==null)return o;if(o instanceof Date){let f=BigInt(o.getTime());return i.
unit==="NANOS"?f*1000000n:i.unit==="MICROS"?f*1000n:f}return BigInt(o)});if(i?.type==="GEOMETRY"||i?.type==="GEOGRAPHY"){
if(!Array.isArray(t))throw new Error("geometry must be an array");return Fi(t,o=>o==null?o:Mi(o))}return t}function $i(e){
if(e!=null){if(e instanceof Uint8Array)return e;if(typeof e=="string"){if(!/^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$/i.
test(e))throw new Error("UUID must be a valid UUID string");e=e.replace(/-/g,"").toLowerCase();let n=new Uint8Array(16);
for(let r=0;r<16;r++)n[r]=parseInt(e.slice(r*2,r*2+2),16);return n}throw new Error("UUID must be a string or Uint8Array")}}
var qi=16,gs=new TextDecoder("utf-8",{fatal:!0,ignoreBOM:!0});function ki(e,t,n,r){return e.length<=r||!Vi(t)?e:(As(t)?ws(
e,n,r):zi(e,n,r))??e}function Vi({type:e,converted_type:t,logical_type:n}){return e!=="BYTE_ARRAY"||t==="DECIMAL"||t==="\
JSON"||t==="BSON"?!1:n?.type!=="JSON"&&n?.type!=="BSON"}function As({converted_type:e,logical_type:t}){return e==="UTF8"||
e==="ENUM"||t?.type==="STRING"||t?.type==="ENUM"}function zi(e,t,n){let r=new Uint8Array(e.subarray(0,n));if(!t)return r;
let i=r.length-1;for(;i>=0&&r[i]===255;)i--;if(i<0)return;let o=r.slice(0,i+1);return o[i]+=1,o}function ws(e,t,n){let r=n;
for(;r>0&&(e[r]&192)===128;)r--;if(!t)return new Uint8Array(e.subarray(0,r));let i;try{i=gs.decode(e.subarray(0,r))}catch{
return zi(e,t,n)}let o=Array.from(i,s=>s.codePointAt(0)??0),f=new TextEncoder;for(let s=o.length-1;s>=0;s--){for(r--;r>0&&
(e[r]&192)===128;)r--;let a=o[s];if(a===1114111)continue;let l=a===55295?57344:a+1,u=f.encode(String.fromCodePoint(l));if(r+
u.length>n)continue;let c=new Uint8Array(r+u.length);return c.set(e.subarray(0,r)),c.set(u,r),c}}function vi(e,t,n,r){if(e==
null||!Vi(t))return;let i=e instanceof Uint8Array?e:new TextEncoder().encode(e.toString());return ki(i,t,n,r)===i?void 0:
!1}function Be(e,t,n,r=qi){if(e==null)return;let{type:i,converted_type:o}=t;if(i==="BOOLEAN")return new Uint8Array([e?1:
0]);if(t.logical_type?.type==="UUID"&&(typeof e=="string"||e instanceof Uint8Array))return $i(e);if(o==="DECIMAL"){if(typeof e!=
"number"&&typeof e!="bigint")throw new Error("DECIMAL must be a number or bigint");let f=10**(t.scale||0),s=typeof e=="b\
igint"?e:BigInt(Math.round(e*f)),a=On(t,s);if(a instanceof Uint8Array)return a;if(typeof a=="number"){let l=new ArrayBuffer(
4);return new DataView(l).setInt32(0,a,!0),new Uint8Array(l)}if(typeof a=="bigint"){let l=new ArrayBuffer(8);return new DataView(
l).setBigInt64(0,a,!0),new Uint8Array(l)}}if(t.logical_type?.type==="FLOAT16"&&typeof e=="number")return ji(e);if(i==="B\
YTE_ARRAY"||i==="FIXED_LEN_BYTE_ARRAY"){let f=e instanceof Uint8Array?e:new TextEncoder().encode(e.toString());return ki(
f,t,n,r)}if(i==="FLOAT"&&typeof e=="number"){let f=new ArrayBuffer(4);return new DataView(f).setFloat32(0,e,!0),new Uint8Array(
f)}if(i==="DOUBLE"&&typeof e=="number"){let f=new ArrayBuffer(8);return new DataView(f).setFloat64(0,e,!0),new Uint8Array(
f)}if(i==="INT32"&&typeof e=="number"){let f=new ArrayBuffer(4);return new DataView(f).setInt32(0,e,!0),new Uint8Array(f)}
if(i==="INT64"&&(typeof e=="bigint"||typeof e=="number"&&Number.isInteger(e))){let f=new ArrayBuffer(8);return new DataView(
f).setBigInt64(0,BigInt(e),!0),new Uint8Array(f)}if(i==="INT32"&&o==="DATE"&&e instanceof Date){let f=new ArrayBuffer(4);
return new DataView(f).setInt32(0,Math.floor(e.getTime()/Yi),!0),new Uint8Array(f)}if(i==="INT64"&&o==="TIMESTAMP_MILLIS"&&
e instanceof Date){let f=new ArrayBuffer(8);return new DataView(f).setBigInt64(0,BigInt(e.getTime()),!0),new Uint8Array(
f)}if(i==="INT64"&&o==="TIMESTAMP_MICROS"&&e instanceof Date){let f=new ArrayBuffer(8);return new DataView(f).setBigInt64(
0,BigInt(e.getTime()*1e3),!0),new Uint8Array(f)}if(i==="INT64"&&t.logical_type?.type==="TIMESTAMP"&&e instanceof Date){let f=BigInt(
e.getTime()),{unit:s}=t.logical_type,a=f;s==="NANOS"?a=f*1000000n:s==="MICROS"&&(a=f*1000n);let l=new ArrayBuffer(8);return new DataView(
l).setBigInt64(0,a,!0),new Uint8Array(l)}throw new Error(`unsupported type for statistics: ${i} with value ${e}`)}function Gi(e,t,n=qi){
return{field_1:Be(e.max,t,!0,n),field_2:Be(e.min,t,!1,n),field_3:e.null_count,field_4:e.distinct_count,field_5:Be(e.max_value,
t,!0,n),field_6:Be(e.min_value,t,!1,n),field_7:e.is_max_value_exact??vi(e.max_value??e.max,t,!0,n),field_8:e.is_min_value_exact??
vi(e.min_value??e.min,t,!1,n),field_9:e.nan_count}}function On({type:e,type_length:t},n){if(e==="INT32")return Number(n);
if(e==="INT64")return n;if(e==="FIXED_LEN_BYTE_ARRAY"&&!t)throw new Error("fixed length byte array type_length is requir\
ed");if(!t&&!n)return new Uint8Array;let r=[];for(;;){let i=Number(n&0xffn);if(r.unshift(i),n>>=8n,t){if(r.length>=t)break}else{
let o=i&128;if(!o&&n===0n||o&&n===-1n)break}}return new Uint8Array(r)}function ji(e){if(e==null)return;if(typeof e!="num\
ber")throw new Error("parquet float16 expected number value");if(Number.isNaN(e))return new Uint8Array([0,126]);let t=e<
0||Object.is(e,-0)?1:0,n=Math.abs(e);if(!isFinite(n))return new Uint8Array([0,t<<7|124]);if(n===0)return new Uint8Array(
[0,t<<7]);if(n>=65520)return new Uint8Array([0,t<<7|124]);let r=-14;if(n>=2**-14){let l=new DataView(new ArrayBuffer(8));
l.setFloat64(0,n),r=(l.getUint32(0)>>>20&2047)-1023}let i=n/2**(r-10),o=Math.floor(i),f=i-o;(f>.5||f===.5&&o%2)&&o++;let s=n<
2**-14?o:(r+14)*1024+o,a=t<<15|s;return new Uint8Array([a&255,a>>8])}function Wi({writer:e,column:t,pageData:n}){let{columnName:r,element:i,schemaPath:o,stats:f,pageSize:s,dictionarySize:a,
encoding:l}=t,{type:u,type_length:c}=i;if(!u)throw new Error(`column ${r} cannot determine type`);let{values:d,definitionLevels:_,
repetitionLevels:p,maxDefinitionLevel:h}=n,g=e.offset,y=0,m=[],w=i?.logical_type?.type==="GEOMETRY"||i?.logical_type?.type===
"GEOGRAPHY",x=f&&w?Li(d):void 0,E;if(t.bloomFilter){let P=typeof t.bloomFilter=="object"?t.bloomFilter:void 0,q=new At(i,
P);for(let Z of d)q.insert(Z);E=q.finalize()}let A,I=i.converted_type!=="UTF8",b=I?Je(i,d):d;if(u==="INT64"){let P=i.converted_type===
"UINT_64"||i.logical_type?.type==="INTEGER"&&!i.logical_type.isSigned,q=P?0n:-(2n**63n),Z=P?2n**64n-1n:2n**63n-1n;for(let H of b)
if(H!=null&&(H<q||H>Z))throw new RangeError(`parquet INT64 value out of range: ${H}`)}let L=i.converted_type==="JSON"?b:
d,N=f?Ki(L,i):void 0,{dictionary:U,indexes:O}=bi(b,u,c,l,a,h===0),R,B,T=u;if(U&&O){B=O,T="INT32",R="RLE_DICTIONARY",A=BigInt(
e.offset);let P=I?U:Je(i,U);y+=Bi(e,t,P),m.push("PLAIN")}else B=I?b:Je(i,d),R=l&&l!=="RLE_DICTIONARY"?l:u==="BOOLEAN"&&d.
length>16?"RLE":"PLAIN";m.push(R);let M=Es(B,T,c,s,p),S=t.columnIndex&&M.length>1?{null_pages:[],min_values:[],max_values:[],
boundary_order:"UNORDERED",null_counts:[],nan_counts:Zi(i)?[]:void 0}:void 0,v=t.offsetIndex&&M.length>1?{page_locations:[]}:
void 0,V=BigInt(e.offset),k=0n,z=0,Q,ue,de=!0,W=!0;for(let{start:P,end:q}of M){let Z=e.offset,H={values:B.slice(P,q),definitionLevels:_.
slice(P,q),repetitionLevels:p.slice(P,q),maxDefinitionLevel:h};if(y+=xi({writer:e,column:t,encoding:R,pageData:H}),S){let X=L.
slice(P,q),{min_value:te,max_value:Le,null_count:Pn=0n,nan_count:Dn}=Ki(X,i),Cn=Pn===BigInt(q-P),Fn=Be(te,i,!1,t.statisticsTruncateLength),
vn=Be(Le,i,!0,t.statisticsTruncateLength);if(!Cn&&(!Fn||!vn))S=void 0;else{if(S.null_pages.push(Cn),S.min_values.push(Fn??
new Uint8Array),S.max_values.push(vn??new Uint8Array),S.null_counts?.push(Pn),Dn!==void 0&&S.nan_counts?.push(Dn),Q!==void 0&&
te!==void 0){let Ce=Nt(Q,te);Ce>0&&(de=!1),Ce<0&&(W=!1)}if(ue!==void 0&&Le!==void 0){let Ce=Nt(ue,Le);Ce>0&&(de=!1),Ce<0&&
(W=!1)}Q=te,ue=Le}}if(v){if(p.length)for(let X=z+1;X<=P;X++)p[X]===0&&k++;else k=BigInt(P);v.page_locations.push({offset:BigInt(
Z),compressed_page_size:e.offset-Z,first_row_index:k})}z=P}S&&(de?S.boundary_order="ASCENDING":W&&(S.boundary_order="DES\
CENDING"));let ee;return f&&(ee=[],A!==void 0&&ee.push({page_type:"DICTIONARY_PAGE",encoding:"PLAIN",count:1}),ee.push({
page_type:"DATA_PAGE_V2",encoding:R,count:M.length})),{chunk:{meta_data:{type:u,encodings:m,path_in_schema:o.slice(1).map(
P=>P.name),codec:t.codec??"UNCOMPRESSED",num_values:BigInt(d.length),total_compressed_size:BigInt(e.offset-g),total_uncompressed_size:BigInt(
y),data_page_offset:V,dictionary_page_offset:A,statistics:N,encoding_stats:ee,geospatial_statistics:x},file_offset:BigInt(
g)},columnIndex:S,offsetIndex:v,bloomFilter:E}}function Es(e,t,n,r,i=[]){if(!r)return[{start:0,end:e.length}];let o=[],f=0,
s=0;for(let a=0;a<e.length;a++){let l=Lt(e[a],t,n);s+=l;let u=!i.length||i[a]===0;s>=r&&a>f&&u&&(o.push({start:f,end:a}),
f=a,s=l)}return f<e.length&&o.push({start:f,end:e.length}),o}function Ki(e,t){let n,r,i=0n,o=Zi(t)?0n:void 0;for(let f of e){
if(f==null){i++;continue}let s=Is(f,t);if(!(typeof s=="object"&&!(s instanceof Uint8Array))){if(typeof s=="number"&&Number.
isNaN(s)){o!==void 0&&o++;continue}(n===void 0||Nt(s,n)<0)&&(n=s),(r===void 0||Nt(s,r)>0)&&(r=s)}}return n===0&&(n=-0),r===
0&&(r=0),{min_value:n,max_value:r,null_count:i,nan_count:o}}function Zi({type:e,logical_type:t}){return e==="FLOAT"||e===
"DOUBLE"||t?.type==="FLOAT16"}function Is(e,t){return t.converted_type==="DECIMAL"&&typeof e=="number"?BigInt(Math.round(
e*10**(t.scale||0))):e instanceof Date&&(t.type==="INT32"||t.type==="INT64")?Je(t,[e])[0]:e}function Nt(e,t){if(e instanceof
Uint8Array&&t instanceof Uint8Array){let n=Math.min(e.length,t.length);for(let r=0;r<n;r+=1)if(e[r]!==t[r])return e[r]-t[r];
return e.length-t.length}return typeof e=="string"&&typeof t=="string"?xs(e,t):e<t?-1:e>t?1:0}function xs(e,t){if(e===t)
return 0;let n=Math.min(e.length,t.length),r=0;for(;r<n&&e.charCodeAt(r)===t.charCodeAt(r);)r++;if(r>0){let i=e.charCodeAt(
r-1);i>=55296&&i<=56319&&r--}for(;r<e.length&&r<t.length;){let i=Hi(e,r),o=Hi(t,r);if(i!==o)return i-o;r+=i>65535?2:1}return e.
length-t.length}function Hi(e,t){let n=e.codePointAt(t)??65533;return n>=55296&&n<=57343?65533:n}function Xi(e,t){let n=e.map(c=>c.element);if(e.length<2)throw new Error("parquet schema path must include column");let r=[],
i=[],o=di(e);if(e.length===2&&o===0)return{values:t,definitionLevels:r,repetitionLevels:i,maxDefinitionLevel:o};if(e.length===
2&&o===1){let c=new Array(t.length);for(let d=0;d<t.length;d++)c[d]=t[d]===null||t[d]===void 0?0:1;return{values:t,definitionLevels:c,
repetitionLevels:i,maxDefinitionLevel:o}}let f=new Array(e.length),s=0;for(let c=0;c<e.length;c++)f[c]=s,n[c].repetition_type===
"REPEATED"&&s++;let a=[];for(let c of t)l(1,c,0,0,!1);return{values:a,definitionLevels:r,repetitionLevels:i,maxDefinitionLevel:o};
function l(c,d,_,p,h){let g=n[c],y=g.repetition_type||"REQUIRED";if(c===e.length-1){if(d==null){if(y==="REQUIRED"&&!h)throw new Error(
"parquet required value is undefined");r.push(_)}else r.push(y==="REQUIRED"?_:_+1);i.push(p),a.push(d);return}if(y==="RE\
PEATED"){if(d==null){if(!h)throw new Error("parquet required value is undefined");l(c+1,void 0,_,p,!0);return}if(!Array.
isArray(d))throw new Error(`parquet repeated field ${g.name} must be an array`);if(!d.length){l(c+1,void 0,_,p,!0);return}
let m=It(e[c-1]),w=n[c+1];for(let x=0;x<d.length;x++){let E=d[x];m&&E&&typeof E=="object"&&w&&(E=E[w.name]);let A=x===0?
p:f[c]+1;l(c+1,E,_+1,A,!1)}return}if(y==="OPTIONAL"){if(d==null)l(c+1,void 0,_,p,!0);else{let m=u(c,d),w=m==null,x=En(e[c])||
It(e[c]),A=g.num_children&&!g.type&&!x||!w?_+1:_;l(c+1,m,A,p,w)}return}if(d==null){if(!h)throw new Error("parquet requir\
ed value is undefined");l(c+1,void 0,_,p,!0)}else l(c+1,u(c,d),_,p,!1)}function u(c,d){if(d==null)return;let _=n[c+1];if(_){
if(En(e[c]))return d;if(It(e[c]))return Ts(d,n[c]);if(typeof d=="object"&&!Array.isArray(d))return d[_.name];throw new Error(
`parquet expected struct, got ${d}`)}}}function Ts(e,t){if(e instanceof Map)return Array.from(e.entries(),([n,r])=>({key:n,
value:r}));if(Array.isArray(e))return e.map(n=>{if(n&&typeof n=="object"&&"key"in n&&"value"in n)return n;if(Array.isArray(
n)&&n.length===2)return{key:n[0],value:n[1]};throw new Error("parquet map entry must provide key and value")});if(typeof e==
"object")return Object.entries(e).map(([n,r])=>({key:n,value:r}));throw new Error(`parquet map field ${t.name} must be M\
ap, array, or object`)}function Ji(e,t){for(let{chunk:n,columnIndex:r}of t)bs(e,n,r);for(let{chunk:n,offsetIndex:r}of t)Bs(e,n,r)}function bs(e,t,n){
if(!n||n.min_values.length<=1)return;let r=e.offset;ce(e,{field_1:n.null_pages,field_2:n.min_values,field_3:n.max_values,
field_4:oi.indexOf(n.boundary_order),field_5:n.null_counts,field_8:n.nan_counts}),t.column_index_offset=BigInt(r),t.column_index_length=
e.offset-r}function Bs(e,t,n){if(!n||n.page_locations.length<=1)return;let r=e.offset;ce(e,{field_1:n.page_locations.map(
i=>({field_1:i.offset,field_2:i.compressed_page_size,field_3:i.first_row_index}))}),t.offset_index_offset=BigInt(r),t.offset_index_length=
e.offset-r}function eo(e,t,n){let r=Bt(t.schema),i={field_1:t.version,field_2:t.schema.map(a=>({field_1:a.type&&An.indexOf(a.type),
field_2:a.type_length,field_3:a.repetition_type&&ni.indexOf(a.repetition_type),field_4:a.name,field_5:a.num_children,field_6:a.
converted_type&&ri.indexOf(a.converted_type),field_7:a.scale,field_8:a.precision,field_9:a.field_id,field_10:Rs(a.logical_type)})),
field_3:t.num_rows,field_4:t.row_groups.map(a=>({field_1:a.columns.map(l=>({field_1:l.file_path,field_2:l.file_offset,field_3:l.
meta_data&&{field_1:An.indexOf(l.meta_data.type),field_2:l.meta_data.encodings.map(u=>le.indexOf(u)),field_3:l.meta_data.
path_in_schema,field_4:ii.indexOf(l.meta_data.codec),field_5:l.meta_data.num_values,field_6:l.meta_data.total_uncompressed_size,
field_7:l.meta_data.total_compressed_size,field_8:l.meta_data.key_value_metadata&&l.meta_data.key_value_metadata.map(u=>({
field_1:u.key,field_2:u.value})),field_9:l.meta_data.data_page_offset,field_10:l.meta_data.index_page_offset,field_11:l.
meta_data.dictionary_page_offset,field_12:l.meta_data.statistics&&Gi(l.meta_data.statistics,s(l.meta_data.path_in_schema),
n),field_13:l.meta_data.encoding_stats&&l.meta_data.encoding_stats.map(u=>({field_1:wt.indexOf(u.page_type),field_2:le.indexOf(
u.encoding),field_3:u.count})),field_14:l.meta_data.bloom_filter_offset,field_15:l.meta_data.bloom_filter_length,field_16:l.
meta_data.size_statistics&&{field_1:l.meta_data.size_statistics.unencoded_byte_array_data_bytes,field_2:l.meta_data.size_statistics.
repetition_level_histogram,field_3:l.meta_data.size_statistics.definition_level_histogram},field_17:l.meta_data.geospatial_statistics&&
{field_1:l.meta_data.geospatial_statistics.bbox&&Ls(l.meta_data.geospatial_statistics.bbox),field_2:l.meta_data.geospatial_statistics.
geospatial_types}},field_4:l.offset_index_offset,field_5:l.offset_index_length,field_6:l.column_index_offset,field_7:l.column_index_length,
field_9:l.encrypted_column_metadata})),field_2:a.total_byte_size,field_3:a.num_rows,field_4:a.sorting_columns&&a.sorting_columns.
map(l=>({field_1:l.column_idx,field_2:l.descending,field_3:l.nulls_first})),field_5:a.file_offset,field_6:a.total_compressed_size})),
field_5:t.key_value_metadata&&t.key_value_metadata.map(a=>({field_1:a.key,field_2:a.value})),field_6:t.created_by,field_7:t.
schema.filter(a=>a.type).map(()=>({field_1:{}}))},o=e.offset;ce(e,i);let f=e.offset-o;e.appendUint32(f);function s(a){let l=r(
a);return l[l.length-1].element}}function Ls(e){return new He([[1,7,e.xmin],[2,7,e.xmax],[3,7,e.ymin],[4,7,e.ymax],[5,7,
e.zmin],[6,7,e.zmax],[7,7,e.mmin],[8,7,e.mmax]])}function Rs(e){if(e){if(e.type==="STRING")return{field_1:{}};if(e.type===
"MAP")return{field_2:{}};if(e.type==="LIST")return{field_3:{}};if(e.type==="ENUM")return{field_4:{}};if(e.type==="DECIMA\
L")return{field_5:{field_1:e.scale,field_2:e.precision}};if(e.type==="DATE")return{field_6:{}};if(e.type==="TIME")return{
field_7:{field_1:e.isAdjustedToUTC,field_2:Qi(e.unit)}};if(e.type==="TIMESTAMP")return{field_8:{field_1:e.isAdjustedToUTC,
field_2:Qi(e.unit)}};if(e.type==="INTEGER")return{field_10:{field_1:e.bitWidth,field_2:e.isSigned}};if(e.type==="NULL")return{
field_11:{}};if(e.type==="JSON")return{field_12:{}};if(e.type==="BSON")return{field_13:{}};if(e.type==="UUID")return{field_14:{}};
if(e.type==="FLOAT16")return{field_15:{}};if(e.type==="VARIANT")return{field_16:{}};if(e.type==="GEOMETRY")return{field_17:{
field_1:e.crs}};if(e.type==="GEOGRAPHY")return{field_18:{field_1:e.crs,field_2:e.algorithm&&fi.indexOf(e.algorithm)}}}}function Qi(e){
return e==="NANOS"?{field_3:{}}:e==="MICROS"?{field_2:{}}:{field_1:{}}}var oo=14,to=65535,no=new Array(oo+1);function fo(e){let t=new F;return t.appendVarInt(e.length),Us(t,e),t.getBytes()}function Qe(e,t){
return Math.imul(e,506832829)>>>t}function et(e,t){return e[t]+(e[t+1]<<8)+(e[t+2]<<16)+(e[t+3]<<24)}function ro(e,t,n){
return e[t]===e[n]&&e[t+1]===e[n+1]&&e[t+2]===e[n+2]&&e[t+3]===e[n+3]}function io(e,t,n,r){if(r<=60)e.appendUint8(r-1<<2);else{
let i=r-1,o=i<256?1:i<65536?2:i<16777216?3:4;e.appendUint8(59+o<<2);for(let f=0;f<o;f++)e.appendUint8(i>>>f*8)}e.appendBytes(
t.subarray(n,n+r))}function Sn(e,t,n){n<12&&t<2048?(e.appendUint8(1+(n-4<<2)+(t>>>8<<5)),e.appendUint8(t&255)):(e.appendUint8(
2+(n-1<<2)),e.appendUint8(t&255),e.appendUint8(t>>>8))}function Ns(e,t,n){for(;n>=68;)Sn(e,t,64),n-=64;n>64&&(Sn(e,t,60),
n-=60),Sn(e,t,n)}function Us(e,t){let n=t.length,r=1;for(;1<<r<=n&&r<=oo;)r++;r--;let i=32-r;no[r]??=new Uint32Array(1<<
r);let o=no[r];o.fill(0);let f=n,s,a=0,l=0,u,c,d,_,p,h,g,y,m,w,x,E=!0,A=15;if(n>=A)for(s=f-A,a++,c=Qe(et(t,a),i);E;){p=32,
d=a;do{if(a=d,u=c,h=p>>>5,p++,d=a+h,a>s){E=!1;break}c=Qe(et(t,d),i),_=o[u],o[u]=a}while(a-_>to||!ro(t,a,_));if(!E)break;
io(e,t,l,a-l);do{for(g=a,y=4;a+y<f&&t[a+y]===t[_+y];)y++;if(a+=y,m=g-_,Ns(e,m,y),l=a,a>=s){E=!1;break}w=Qe(et(t,a-1),i),
o[w]=a-1,x=Qe(et(t,a),i),_=o[x],o[x]=a}while(a-_<=to&&ro(t,a,_));if(!E)break;a++,c=Qe(et(t,a),i)}l<f&&io(e,t,l,f-l)}var Ut=class{constructor({writer:t,schema:n,codec:r="SNAPPY",compressors:i,statistics:o=!0,statisticsTruncateLength:f,kvMetadata:s,
createdBy:a="hyparquet"}){if(f!==void 0&&f!==1/0&&!(Number.isInteger(f)&&f>0))throw new Error("statisticsTruncateLength \
must be a positive integer or Infinity");this.writer=t,this.schema=n,this.codec=r,this.compressors={SNAPPY:fo,...i},this.
statistics=o,this.statisticsTruncateLength=f,this.kvMetadata=s,this.createdBy=a,this.row_groups=[],this.num_rows=0n,this.
pendingIndexes=[],this.writer.appendUint32(827474256)}write({columnData:t,rowGroupSize:n=[1e3,1e5],pageSize:r=1048576,dictionarySize:i}){
for(let{codec:a=this.codec}of t)if(a!=="UNCOMPRESSED"&&!this.compressors[a])throw new Error(`parquet no compressor for c\
odec ${a}`);let o=t[0]?.data?.length||0,f=Bt(this.schema),s;for(let{groupStartIndex:a,groupSize:l}of Ss({columnDataRows:o,
rowGroupSize:n})){let u=()=>{let c=this.writer.offset,d=[];for(let p=0;p<t.length;p++){let{name:h,data:g,encoding:y,codec:m=this.
codec,columnIndex:w=!1,offsetIndex:x=!0,shredding:E,bloomFilter:A,statistics:I=this.statistics}=t[p];if(w&&!x)throw new Error(
"parquet ColumnIndex cannot be present without OffsetIndex");if(g.length!==o)throw new Error("parquet columns must have \
the same length");let b=g.slice(a,a+l),L=f([h]),N=Ms(L),U=L.at(-1)?.element,O=E&&E!==!0?E:void 0,R=U?.logical_type?.type===
"VARIANT",B=U?.repetition_type==="REQUIRED",T=R?gi(Array.from(b),O,{name:h,required:B}):b;for(let M of N){let S=M.map(z=>z.
element),v={columnName:S.slice(1).map(z=>z.name).join("."),element:S[S.length-1],schemaPath:S,codec:m,compressors:this.compressors,
stats:I,statisticsTruncateLength:this.statisticsTruncateLength,pageSize:r,dictionarySize:i,columnIndex:w,offsetIndex:x,encoding:y,
bloomFilter:A},V=Xi(M,T),k=Wi({writer:this.writer,column:v,pageData:V});d.push(k.chunk),this.pendingIndexes.push(k)}}let _=0n;
for(let{meta_data:p}of d)_+=p?.total_uncompressed_size??0n;return this.num_rows+=BigInt(l),this.row_groups.push({columns:d,
total_byte_size:_,num_rows:BigInt(l),total_compressed_size:BigInt(this.writer.offset-c)}),this.writer.flush?.()};if(s)s=
s.then(u);else{let c=u();c&&(s=Promise.resolve(c))}}return s}finish(){Ji(this.writer,this.pendingIndexes),ti(this.writer,
this.pendingIndexes);let t={version:2,created_by:this.createdBy,schema:this.schema,num_rows:this.num_rows,row_groups:this.
row_groups,metadata_length:0,key_value_metadata:this.kvMetadata};return delete t.metadata_length,eo(this.writer,t,this.statisticsTruncateLength),
this.writer.appendUint32(827474256),this.writer.finish()}};function Os(e,t){return Array.isArray(e)?e[Math.min(t,e.length-
1)]:e}function Ss({columnDataRows:e,rowGroupSize:t}){if(Array.isArray(t)&&!t.length)throw new Error("rowGroupSize array \
cannot be empty");let n=[],r=0,i=0;for(;i<e;){let o=Os(t,r);n.push({groupStartIndex:i,groupSize:Math.min(o,e-i)}),i+=o,r++}
return n}function Ms(e){let t=[];return n(e),t;function n(r){let i=r[r.length-1];if(!i.children.length){t.push(r);return}
for(let o of i.children)n([...r,o])}}function so({writer:e,columnData:t,schema:n,codec:r="SNAPPY",compressors:i,statistics:o=!0,statisticsTruncateLength:f,rowGroupSize:s=[
1e3,1e5],kvMetadata:a,createdBy:l,pageSize:u=1048576,dictionarySize:c}){if(t=t.map(p=>{if(p.shredding===!0&&p.type==="VA\
RIANT"){let h=Ai(Array.from(p.data));return h?{...p,shredding:h}:{...p,shredding:void 0}}if(p.shredding!==void 0&&p.shredding!==
!0&&p.type==="VARIANT"){let h=me(p.shredding);return h?{...p,shredding:h}:{...p,shredding:void 0}}return p}),!n)n=wi({columnData:t});else if(t.
some(({type:p})=>p))throw new Error("cannot provide both schema and columnData type");let d=new Ut({writer:e,schema:n,codec:r,
compressors:i,statistics:o,statisticsTruncateLength:f,kvMetadata:a,createdBy:l}),_=d.write({columnData:t,rowGroupSize:s,
pageSize:u,dictionarySize:c});return _?_.then(()=>d.finish()):d.finish()}function Mn(e){let t=new F;return so({...e,writer:t}),
t.getBuffer()}return _o(Ps);})();
/** @type {import("./types.d.ts").ParquetLibrary} */
export const parquet = library;
